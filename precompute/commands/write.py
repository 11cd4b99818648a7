"""The command `write`: a corpus that a language model writes itself, so that its texts may be published."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lfp.errors import CorpusError
from lfp.texts.openings import Opening, OpeningDraws, TextFilter, WritingConfig, load_writing_config
from lfp.util.types import Progress
from precompute.run.lines import write_lines
from precompute.run.progress import silent

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel

_BATCH = 64
_TRIED, _LEAST_KEPT = 500, 0.05
"""After so many texts this share of them must have been kept; below it the openings do not suit the model."""


@dataclass(frozen=True)
class Written:
    """What `write` wrote."""

    files: tuple[Path, ...]
    kept: int
    left_out: Mapping[str, int]
    """Texts by why they were left out."""


def write(
    openings: str | Path,
    *,
    out: str | Path,
    train: int = 2000,
    held_out: int = 600,
    seed: int = 0,
    progress: Progress = silent,
) -> Written:
    """Let a model continue openings until `train` and `held_out` texts are kept; write both files and written.json.

    The files are train.jsonl.gz and held-out.jsonl.gz in `out`, with the columns text, subject and tone; written.json
    has the model's hash, the seed, and how many texts were left out and why. What the model wrote is kept until the
    end, so that the same command continues where it was interrupted. Raises CorpusError for a wrong file of openings,
    or where hardly a text is kept.
    """
    import torch

    from lfp.ml.models.loading import load_model

    file, folder = Path(openings), Path(out)
    config = load_writing_config(file)
    torch.set_num_threads(1)  # sums are split by thread, so texts repeat only so
    model = load_model(config.model, key="model", dtype=config.dtype)
    draws = OpeningDraws(config, held_out_share=held_out / (train + held_out), seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(model, config, draws, folder, progress)
    wanted = {"train": train, "held-out": held_out}
    shares = {share: writer.write_share(share, n, seed=seed + i) for i, (share, n) in enumerate(wanted.items())}
    files = [folder / f"{share}.jsonl.gz" for share in shares]
    for path, rows in zip(files, shares.values(), strict=True):
        write_lines(path, rows)
    facts = {
        "model": config.model,
        "model_sha256": model.sha256,
        "seed": seed,
        "train": train,
        "held_out": held_out,
        "left_out": dict(writer.left_out.most_common()),
    }
    files.append(folder / "written.json")
    files[-1].write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for answers in writer.answers:
        answers.unlink()
    return Written(tuple(files), train + held_out, writer.left_out)


class _Writer:
    """Writes shares of a corpus with one model, and counts the texts that were left out by why."""

    def __init__(
        self, model: LanguageModel, config: WritingConfig, draws: OpeningDraws, folder: Path, progress: Progress
    ) -> None:
        self.left_out = Counter[str]()
        self.answers: list[Path] = []
        """Files of what the model wrote for each share, a line per batch of openings."""
        self._model, self._config, self._draws = model, config, draws
        self._folder, self._progress = folder, progress
        self._texts = TextFilter()

    def write_share(self, share: str, wanted: int, *, seed: int) -> list[dict[str, str]]:
        """Continue openings of a share in batches until so many texts are kept. Raises CorpusError."""
        rows: list[dict[str, str]] = []
        tried = 0
        key = hashlib.sha256(f"{self._config!r} {self._model.sha256} {self._draws.key} {seed}".encode()).hexdigest()
        answers = self._folder / f".{share}-{key[:16]}.answers"
        self.answers.append(answers)
        known = [json.loads(line) for line in answers.read_text("utf-8").splitlines()] if answers.is_file() else []
        while len(rows) < wanted:
            batch = self._draws.draw(share, tried, _BATCH)
            if known:
                written = known.pop(0)
            else:
                written = self._continue(batch, seed=seed * 100_000 + tried)
                with answers.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(written) + "\n")
            tried += len(batch)
            for opening, continuation in zip(batch, written, strict=True):
                fault = self._texts.find_fault(opening.text, continuation)
                if fault is not None:
                    self.left_out[fault] += 1
                elif len(rows) < wanted:
                    text = (opening.text + continuation).strip()
                    rows.append({"text": text, "subject": opening.subject, "tone": opening.tone})
            if tried >= _TRIED and len(rows) < _LEAST_KEPT * tried:
                (reason, n) = self.left_out.most_common(1)[0]
                raise CorpusError(
                    f"{len(rows)} of {tried} texts could be kept, {n} were left out because: {reason}; try other"
                    " openings, another model or a lower temperature"
                )
            self._progress(f"write {share}", len(rows), wanted, tried)
        return rows

    def _continue(self, openings: list[Opening], *, seed: int) -> list[str]:
        from lfp.ml.models import writing

        config = self._config
        completions = writing.continue_openings(
            self._model,
            openings,
            n_tokens=config.tokens,
            least_tokens=config.least_tokens,
            temperature=config.temperature,
            seed=seed,
        )
        return [completion.text for completion in completions]
