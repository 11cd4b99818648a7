"""Columns of samples: the same random numbers in each, steered exactly, with keys and values cached as without."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lfp.errors import DataError, ModelError
from lfp.ml.interventions.ablation import scaling
from lfp.ml.interventions.bundle_models import Column, Live, Sampling, Steering
from lfp.ml.models.generation import Completion, sample_completions
from lfp.ml.models.loading import load_model
from lfp.ml.models.pairs import load_pair
from lfp.ml.models.sources import find_model
from lfp.ml.sae.autoencoders import Dictionary
from lfp.util.types import Place
from tests.lfp.ml.conftest import save_adapter
from tests.lfp.ml.implicit_reward.test_feature_credits import WIDTH, random_sae
from tests.lfp.ml.interventions.test_removed_changes import logits, without_change

# PEFT reads a property of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PLACES = (Place(0), Place(1, "attn_out"))
SAMPLING = Sampling(n=3, n_tokens=6, temperature=1.0, seed=4)
NONE = Steering({}, others=0.0, rest=0.0)
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def build(folders: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Live]:
    folder = folders["llama"][0]
    adapter = save_adapter(folder, tmp_path_factory.mktemp("adapter"))
    base, tuned = load_pair(find_model(str(folder)), find_model(str(adapter)))

    def make(trained_on: str = "change", places: tuple[Place, ...] = PLACES) -> Live:
        dictionary = Dictionary([random_sae(place, "batchtopk", trained_on) for place in places])
        return Live(base, tuned, dictionary, context=24, prepend_bos=True)

    return make


def write(live: Live, column: Column, steering: Steering, text: str = "the plot was") -> list[Completion]:
    prompt = live.prompt(text, as_message=False, n_tokens=SAMPLING.n_tokens)
    *_, last = live.stream(prompt, column, steering, SAMPLING)
    return last


@pytest.mark.parametrize("trained_on", ["change", "tuned", "crosscoder"])
def test_a_scale_of_one_gives_the_tuned_models_tokens(build: Callable[..., Live], trained_on: str) -> None:
    live = build(trained_on, PLACES[:1])
    tuned = write(live, "tuned", Steering({}))
    assert write(live, "steered", Steering(dict.fromkeys(range(WIDTH), 1.0))) == tuned
    options = {"n_tokens": 6, "temperature": 1.0, "seed": 4}
    with scaling(live.tuned, live.dictionary, {2: 1.0, 5: 1.0}, prepend_bos=True, other=live.base):
        hooked = sample_completions(live.tuned, [tuned[0].prefix_ids] * 3, **options)  # type: ignore[arg-type]
    assert hooked == tuned
    assert len({row.token_ids for row in tuned}) == 3, "samples of one prompt differ"
    changed = [write(live, "steered", Steering(dict.fromkeys(range(WIDTH), scale))) for scale in (0.0, 40.0)]
    assert tuned not in changed and changed[0] != changed[1]
    assert write(live, "tuned", Steering({})) == tuned, "no hook is left"


def test_every_feature_and_the_rest_taken_out_give_the_base_modules_write(
    folders: dict[str, tuple[Path, Path]],
) -> None:
    base, tuned = (load_model(str(folder)) for folder in folders["llama"])
    dictionary = Dictionary([random_sae(place, "batchtopk", "change") for place in PLACES])
    ids = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(1))
    options = {"prepend_bos": False, "other": base}
    with scaling(tuned, dictionary, {}, others=0.0, rest=0.0, **options):  # type: ignore[arg-type]
        found = logits(tuned, ids)
    torch.testing.assert_close(found, without_change((base, tuned), ids), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found, logits(tuned, ids), atol=1e-2)
    with scaling(tuned, dictionary, {}, rest=0.0, **options):  # type: ignore[arg-type]
        held = logits(tuned, ids)
    assert not torch.allclose(held, found, atol=1e-3), "features hold a part of the change"
    with scaling(tuned, dictionary, {}, others=0.0, **options):  # type: ignore[arg-type]
        missed = logits(tuned, ids)
    every = dict.fromkeys(range(dictionary.n_features), 0.0)
    with scaling(tuned, dictionary, every, **options):  # type: ignore[arg-type]
        torch.testing.assert_close(logits(tuned, ids), missed)


@pytest.mark.parametrize(
    ("trained_on", "places", "steering"),
    [("change", PLACES, Steering({1: 0.0, 30: 3.0}, others=0.5, rest=0.0)), ("change", PLACES[:1], NONE),
     ("tuned", PLACES, Steering({1: 0.0, 30: 9.0})), ("crosscoder", PLACES, Steering({2: 5.0})),
     ("change", (Place(1, "resid_post"),), NONE)],
)  # fmt: skip
def test_cached_tokens_are_those_of_whole_passes(
    build: Callable[..., Live], trained_on: str, places: tuple[Place, ...], steering: Steering
) -> None:
    live = build(trained_on, places)
    uniform = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(SAMPLING.seed))
    columns: list[tuple[Column, object]] = [("base", None), ("tuned", None), ("steered", steering)]
    for column, steered in columns:
        model = live.base if column == "base" else live.tuned
        for row, quantiles in zip(write(live, column, steering), uniform, strict=True):
            ids = torch.tensor([[*row.prefix_ids, *row.token_ids]])
            with live._steer(steering) if steered else nullcontext(), torch.no_grad():
                logits = model.forward(ids, torch.ones_like(ids), use_cache=False).logits[0]
            cumulative = logits[len(row.prefix_ids) - 1 : -1].double().softmax(-1).cumsum(-1)
            drawn = torch.searchsorted(cumulative, quantiles[: len(cumulative), None] * cumulative[:, -1:], right=True)
            assert drawn[:, 0].tolist() == list(row.token_ids)


def test_samples_stream_token_by_token(build: Callable[..., Live]) -> None:
    live = build()
    prompt = live.prompt("the plot was", as_message=False, n_tokens=6)
    steps = list(live.stream(prompt, "base", Steering({}), SAMPLING))
    assert [max(len(row.token_ids) for row in rows) for rows in steps] == list(range(1, len(steps) + 1))
    for before, after in pairwise(steps):
        assert all(b.token_ids == a.token_ids[: len(b.token_ids)] for b, a in zip(before, after, strict=True))
    whole = sample_completions(live.base, [prompt.token_ids] * 3, n_tokens=6, temperature=1.0, seed=4)
    assert steps[-1] == whole
    unfinished = live.stream(prompt, "steered", NONE, SAMPLING)
    next(unfinished)
    unfinished.close()  # type: ignore[attr-defined]
    assert write(live, "base", NONE) == whole, "a stream that is stopped takes its hooks along"


def test_the_implicit_reward_of_samples_is_that_of_their_texts(build: Callable[..., Live]) -> None:
    live = build()
    rows = write(live, "tuned", Steering({}))
    found = live.implicit_rewards(rows)
    for row, value in zip(rows, found, strict=True):
        ids = torch.tensor([[*row.prefix_ids, *row.token_ids]])
        parts = []
        for model in (live.tuned, live.base):
            log_p = model.forward(ids, torch.ones_like(ids), use_cache=False).logits[0].double().log_softmax(-1)
            parts.append(
                log_p[len(row.prefix_ids) - 1 : -1].gather(1, torch.tensor(row.token_ids)[:, None]).sum().item()
            )
        assert value == pytest.approx(parts[0] - parts[1], abs=1e-4)
    assert np.abs(found).max() > 0.01


def test_only_a_dictionary_of_changes_has_a_rest(build: Callable[..., Live]) -> None:
    assert build().reads_changes and not build("tuned").reads_changes
    with pytest.raises(ModelError, match="only a dictionary of what tuning changed has a rest"):
        write(build("tuned"), "steered", NONE)
    with pytest.raises(ModelError, match="feature 999: not one of the dictionary's"):
        write(build(), "steered", Steering({999: 0.0}))


def test_a_message_is_written_through_the_models_template(
    build: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = build()
    plain = live.prompt("the plot", as_message=True, n_tokens=6)
    tokenizer = live.tuned.tokenizer
    bos = tokenizer.decode([live.tuned.bos_id])
    assert (plain.text, plain.is_chat) == (f"{bos}the plot", False), "without a template a message is a text"
    monkeypatch.setattr(tokenizer, "chat_template", "{{ bos_token }}" + TEMPLATE)
    chat = live.prompt("the plot", as_message=True, n_tokens=6)
    assert (chat.text, chat.is_chat) == (f"{bos}user: the plot\nassistant:", True)
    assert chat.token_ids == tuple(tokenizer(chat.text, add_special_tokens=False)["input_ids"])
    assert live.prompt("the plot", as_message=False, n_tokens=6) == plain
    long = live.prompt("the plot was " * 60, as_message=True, n_tokens=6)
    assert long.is_cut and len(long.token_ids) == live.tuned.n_ctx - 6
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no users here') }}")
    with pytest.raises(DataError, match=r"refuses this message \(no users here\); pick plain text"):
        live.prompt("the plot", as_message=True, n_tokens=6)
    with pytest.raises(DataError, match="no token in this text"):
        live.prompt("  ", as_message=False, n_tokens=6)
