"""Changes of writes are what the two models' modules write at the same input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.errors import ModelError
from lfp.ml.implicit_reward.changes import Form, stream_change_pairs, stream_changes
from lfp.ml.models.activations import Tokens, stream_pair
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.sites import hook_sites
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.util.types import Place
from tests.lfp.ml.conftest import load_adapted_and_merged

Pair = tuple[LanguageModel, LanguageModel]
PLACES = tuple(Place(layer, site) for layer in (0, 1) for site in ("mlp_out", "attn_out"))
# PEFT reads a property of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def read_texts(model: LanguageModel, sentences: list[str]) -> list[TokenizedText]:
    return tokenize(model.tokenizer, sentences, context=14)[:3]


def join(parts: list[Tokens], place: Place) -> Tensor:
    return torch.cat([part.outputs[place] for part in parts])


def write_with(pair: Pair, text: TokenizedText, place: Place, role: int) -> Tensor:
    """What layer and site write [tokens, d] in the model `role` with the module's weights those of the other."""
    network = AutoModelForCausalLM.from_pretrained(pair[role].name, dtype=torch.float32).eval()
    layers = (f"{name}.{place.layer}." for name in ("layers", "h", "blocks"))
    part = next(part for part in layers if any(part in name for name in pair[0].parameters))
    kinds = ("mlp", "ffn", "fc1", "fc2") if place.site == "mlp_out" else ("attn", "attention")
    with torch.no_grad():
        for name, value in network.named_parameters():
            if part in name and any(kind in name for kind in kinds) and "norm" not in name.split(part)[1].split(".")[0]:
                value.copy_(pair[1 - role].parameters[name])
        kept: list[Tensor] = []
        ids = torch.tensor([[pair[0].bos_id, *text.token_ids]])
        with hook_sites(network, {place: kept.append}):
            network(ids)
    return kept[0][0, 1:]


def test_a_change_is_what_the_other_weights_would_write_less(every_pair: Pair, sentences: list[str]) -> None:
    base, tuned = every_pair
    texts = read_texts(base, sentences)
    options = {"places": PLACES, "batch_texts": 2, "prepend_bos": True}
    pairs = list(stream_change_pairs(tuned, base, texts, **options))
    plain = list(stream_pair(tuned, base, texts, **options))
    assert all(torch.equal(a.tuned.ids, b.tuned.ids) for a, b in zip(pairs, plain, strict=True))
    torch.testing.assert_close(pairs[0].implicit_reward, plain[0].implicit_reward, equal_nan=True)
    for place in PLACES:
        for role, sign in ((1, 1.0), (0, -1.0)):
            side = "tuned" if role else "base"
            found = join([getattr(part, side) for part in pairs], place)
            own = join([getattr(part, side) for part in plain], place)
            swapped = torch.cat([write_with(every_pair, text, place, role) for text in texts])
            torch.testing.assert_close(found, sign * (own - swapped), atol=1e-4, rtol=1e-3)
            assert found.abs().mean() > 1e-3
    changes = list(stream_changes(tuned, base, texts, **options))
    for place in PLACES:
        assert torch.equal(join(changes, place), join([part.tuned for part in pairs], place))


def test_an_adapter_changes_what_the_merged_model_changes(
    tmp_path: Path, folders: dict[str, tuple[Path, Path]], sentences: list[str]
) -> None:
    (base, tuned), merged = load_adapted_and_merged(folders["llama"][1], tmp_path)
    texts, options = read_texts(base, sentences), {"places": PLACES, "batch_texts": 2, "prepend_bos": True}
    found = list(stream_change_pairs(tuned, base, texts, **options))
    expected = list(stream_change_pairs(*reversed(merged), texts, **options))
    for place in PLACES:
        for side in ("tuned", "base"):
            values = [join([getattr(part, side) for part in parts], place) for parts in (found, expected)]
            torch.testing.assert_close(*values, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("form", ["writes", "activations"])
def test_where_no_module_writes_activations_are_subtracted(
    form: Form, neox: LanguageModel, folders: dict[str, tuple[Path, Path]], sentences: list[str]
) -> None:
    tuned, place = load_model(str(folders["gpt_neox"][1])), Place(1, "resid_post")
    texts, options = read_texts(neox, sentences), {"places": [place], "batch_texts": 2, "prepend_bos": True}
    if form == "writes":
        with pytest.raises(ModelError, match="no single module writes the residual stream; pick mlp_out or attn_out"):
            next(stream_changes(tuned, neox, texts, form=form, **options))
        return
    pairs = list(stream_pair(tuned, neox, texts, **options))
    expected = join([part.tuned for part in pairs], place) - join([part.base for part in pairs], place)
    changes = list(stream_change_pairs(tuned, neox, texts, form=form, **options))
    torch.testing.assert_close(join([part.tuned for part in changes], place), expected)
    torch.testing.assert_close(join(list(stream_changes(tuned, neox, texts, form=form, **options)), place), expected)


def test_half_precision_is_refused(neox: LanguageModel, sentences: list[str]) -> None:
    class Half:
        dtype = torch.bfloat16

    half = replace(neox, network=Half())
    with pytest.raises(ModelError, match=r"bfloat16 rounds away what tuning changed; set model.dtype to float32"):
        next(stream_changes(half, neox, read_texts(neox, sentences), places=PLACES, batch_texts=2, prepend_bos=True))
