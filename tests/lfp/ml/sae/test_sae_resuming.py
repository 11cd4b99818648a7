"""Training autoencoders together, and resuming them after an interruption: the same bits as alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lfp.config import SaeConfig
from lfp.ml.sae.autoencoders import Sae, Variant
from lfp.ml.sae.training import SaeTrainer, train_saes
from tests.lfp.ml.sae.builders import SOURCE, Faulty, changed, info, same_bits, spoil, trained, trainer

RESUMED: list[Variant] = ["tied_relu", "topk", "batchtopk", "jumprelu"]


@pytest.mark.parametrize("variant", RESUMED)
def test_trainers_on_one_stream_are_each_as_if_alone(variant: Variant) -> None:
    """Of two layers, two sizes, two seeds and two lengths."""
    config = changed(steps=40)
    kinds: list[tuple[SaeConfig, dict[str, int]]] = [
        (config, {}),
        (config, {"width": 40}),
        (config, {"layer": 4}),
        (changed(steps=25), {"layer": 4, "seed": 3}),
    ]
    together = train_saes([trainer(variant, one, **of_info) for one, of_info in kinds], SOURCE)
    for sae, (one, of_info) in zip(together, kinds, strict=True):
        assert sae.info == info(variant, **of_info)
        assert same_bits(sae, trained(variant, one, **of_info))


class InterruptedRunError(Exception):
    """Stands for a lost machine."""


class Breaking(Faulty):
    """A source that fails when it is asked for the batch of the step, and counts those it gave."""

    given = 0

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        for number, batch in enumerate(SOURCE.batches(start), start):
            if number == self.step:
                raise InterruptedRunError
            self.given += 1
            yield batch


def pair(variant: Variant) -> list[SaeTrainer]:
    """A long training with dead features that are revived from step 100 on, and a short one of another layer."""
    config = changed(steps=230, l0_weight=0.02, bandwidth=0.05)
    long, short = trainer(variant, config), trainer(variant, config.model_copy(update={"steps": 60}), layer=4)
    spoil(long)
    return [long, short]


def resumed(variant: Variant, checkpoint: Path, source: Breaking) -> list[Sae]:
    return train_saes(pair(variant), source, checkpoint=checkpoint, checkpoint_every=25)


@pytest.mark.parametrize("variant", RESUMED)
def test_an_interrupted_training_goes_on_to_the_same_bits(variant: Variant, tmp_path: Path) -> None:
    """Broken off before there is a checkpoint, between two, at one, after the short one's end and near the end."""
    expected = train_saes(pair(variant), SOURCE)
    checkpoint = tmp_path / "training.pt"
    for step, done in ((10, 0), (40, 0), (75, 25), (130, 75), (229, 125)):
        source = Breaking(step)
        with pytest.raises(InterruptedRunError):
            resumed(variant, checkpoint, source)
        assert source.given == step - done, "it resumes from the last checkpoint"
    found = resumed(variant, checkpoint, source := Breaking(-1))
    assert source.given == 230 - 225
    assert all(same_bits(*saes) for saes in zip(found, expected, strict=True))


@pytest.mark.parametrize("at", [1, 101, 230])
def test_a_training_stopped_by_its_listener_goes_on_to_the_same_bits(at: int, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int, value: float) -> None:
        if done == at:
            raise InterruptedRunError

    checkpoint = tmp_path / "training.pt"
    with pytest.raises(InterruptedRunError):
        train_saes(pair("jumprelu"), SOURCE, checkpoint=checkpoint, checkpoint_every=25, progress=stop)
    found = resumed("jumprelu", checkpoint, Breaking(-1))
    assert all(same_bits(*saes) for saes in zip(found, train_saes(pair("jumprelu"), SOURCE), strict=True))


def test_writing_checkpoints_changes_nothing(tmp_path: Path) -> None:
    found = train_saes(pair("topk"), SOURCE, checkpoint=tmp_path / "training.pt", checkpoint_every=1)
    assert all(same_bits(*saes) for saes in zip(found, train_saes(pair("topk"), SOURCE), strict=True))


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    checkpoint, config = tmp_path / "training.pt", changed(steps=50)
    (expected,) = train_saes([trainer(config=config)], SOURCE, checkpoint=checkpoint, checkpoint_every=50)
    (found,) = train_saes([trainer(config=config)], source := Breaking(0), checkpoint=checkpoint)
    assert source.given == 0 and same_bits(found, expected)


def broken_save(after: int) -> Callable[[Any, Path], None]:
    """`torch.save` until it has written so many files; the next ends half way, as on a full disk."""
    real, written = torch.save, []

    def save(states: Any, path: Path) -> None:
        real(states, path)
        written.append(path)
        if len(written) > after:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise OSError("no space left on device")

    return save


@pytest.mark.parametrize("written", [0, 2])
def test_a_checkpoint_half_written_replaces_none(written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "training.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken_save(written))
        with pytest.raises(OSError, match="no space left"):
            resumed("topk", checkpoint, Breaking(-1))
    assert checkpoint.is_file() == bool(written)
    found = resumed("topk", checkpoint, source := Breaking(-1))
    assert source.given == 230 - 25 * written
    assert all(same_bits(*saes) for saes in zip(found, train_saes(pair("topk"), SOURCE), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"], "what was half written is gone"
