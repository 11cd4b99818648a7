"""Chat templates: what the assistant wrote is found exactly, a beginning-of-sequence token is never doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lfp.config import ModelConfig
from lfp.errors import CorpusError
from lfp.ml.models.chat import TemplateFormat, load_chat_format
from lfp.ml.models.tokenization import tokenize
from lfp.probes.pooling import response_tokens
from lfp.texts.messages import Dialogue, Message, SpeakerFormat
from lfp.texts.reading.rows import RowError
from tests.lfp.ml.conftest import build_model

HEADS = "<|im_start|>{{ m.role }}\n"
CHATML = (
    "{% for m in messages %}" + HEADS + "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|stop|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}</s>{% endgeneration %}"
    "{% else %}U:{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
THINKING = (
    "{% for m in messages %}" + HEADS + "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LOUD = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}"
TALK = (Message("user", "Hi"), Message("assistant", "Hello. "), Message("user", "More"), Message("assistant", " Bye\n"))


def build(template: str, **tokens: str) -> TemplateFormat:
    return TemplateFormat(template, name="the model", special_tokens={"bos_token": "<s>", **tokens}, leading="<s>")


@pytest.mark.parametrize(
    ("template", "eos", "said"),
    [
        (CHATML, "<|im_end|>", ["Hello. <|im_end|>", " Bye\n<|im_end|>"]),
        (LLAMA, "<|eot|>", ["Hello.<|eot|>", "Bye<|eot|>"]),
        (MARKED, "</s>", ["Hello. </s>", " Bye\n</s>"]),
        (THINKING, "<|im_end|>", ["Hello. <|im_end|>", " Bye\n<|im_end|>"]),
        (INSTRUCT, "</s>", ["Hello. </s>", " Bye\n</s>"]),
    ],
    ids=["chatml", "llama", "generation", "thinking", "instruct"],
)
def test_turns_are_found_with_the_token_that_ends_them(template: str, eos: str, said: list[str]) -> None:
    whole = build(template, eos_token=eos).write(TALK)
    assert [whole.text[start:end] for start, end in whole.spans] == said
    assert not whole.text.startswith("<s>") and "Hi" in whole.text[: whole.spans[0][0]]


def test_a_dialogue_may_begin_with_the_assistant() -> None:
    whole = build(LLAMA, eos_token="<|eot|>").write(TALK[1:])
    assert [whole.text[start:end] for start, end in whole.spans] == ["Hello.<|eot|>", "Bye<|eot|>"]


@pytest.mark.parametrize(
    ("template", "dialogue", "says"),
    [
        (INSTRUCT, TALK[1:], "the chat template of the model refuses (roles must alternate)"),
        (LOUD, TALK, "the chat template of the model does not keep the assistant's turns"),
        ("{{ messages[0].nothing.more }}", TALK, "the chat template of the model refuses"),
    ],
)
def test_a_template_that_refuses_or_changes_a_dialogue_is_named(template: str, dialogue: Dialogue, says: str) -> None:
    with pytest.raises(RowError) as caught:
        build(template).write(dialogue)
    assert says in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has marks of turns and a template that begins with its first token, as SmolLM2."""
    from transformers import AutoTokenizer

    path = build_model(tmp_path_factory.mktemp("chat") / "model")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(path)
    return path


def load(folder: Path, **keys: Any) -> Any:
    config = ModelConfig(base=str(folder), **keys)
    return load_chat_format(config, name=str(folder), config_dir=folder)


def test_the_template_of_the_tokenizer_gives_tokens_of_responses(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = load(folder).write(TALK)
    (tokens,) = tokenize(tokenizer, [whole.text], context=200)
    marked = response_tokens(tokens.token_starts, len(tokens.text), whole.spans)
    said = "".join(tokenizer.decode([token]) for token, inside in zip(tokens.token_ids, marked, strict=True) if inside)
    assert said == "Hello. <|im_end|> Bye\n<|im_end|>"
    assert tokenizer.bos_token_id not in tokens.token_ids[:1] and tokens.token_ids.count(tokenizer.eos_token_id) == 4
    assert [tokenizer.bos_token_id, *tokens.token_ids] == tokenizer.apply_chat_template(
        [message.as_dict() for message in TALK], return_dict=False
    )


def test_without_a_first_token_before_texts_the_template_keeps_its_own(folder: Path) -> None:
    assert load(folder, prepend_bos=False).write(TALK).text.startswith("<|im_start|>user")


def test_a_template_is_a_file_a_text_or_the_plain_dialogue(folder: Path) -> None:
    (folder / "mine.jinja").write_text(LOUD.replace(" | upper", ""), encoding="utf-8")
    assert load(folder, chat_template="mine.jinja").write(TALK).text.startswith("user: Hi\nassistant: Hello.")
    assert load(folder, chat_template=MARKED).write(TALK).text.startswith("U:Hi")
    assert isinstance(load(folder, chat_template="dialogue"), SpeakerFormat)
    with pytest.raises(CorpusError, match=r"model\.chat_template absent\.jinja: no such file"):
        load(folder, chat_template="absent.jinja")


def test_a_model_made_by_the_run_has_a_template_only_by_name(tmp_path: Path) -> None:
    assert load_chat_format(ModelConfig(), name="pretrain", config_dir=None) is None
    found = load_chat_format(ModelConfig(chat_template=LLAMA), name="pretrain", config_dir=tmp_path)
    assert found is not None and found.write(TALK[:2]).text.endswith("<|stop|>\n\nHello.<|eot|>")
