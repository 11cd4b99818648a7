"""Openings that a model continues, so that the texts of a corpus are its own: read, drawn, and continuations judged."""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lfp.errors import CorpusError
from lfp.texts.screening import find_objection

_PLAIN = re.compile(r"[\w\s.,;:!?'’‘\"“”()$%&/–—…-]*", re.ASCII)
_NAMES = re.compile(r"(?<![.!?:\"“”] )(?<!^)\b[A-Z][\w'’.]+\s+(?:(?:of|the|de|von|van)\s+)?[A-Z][\w'’]+")
_OF_ASSISTANTS = re.compile(
    r"\b(?:as an ai|language model|assist(?:ance|ant|ing)?|help you|i'm here to|questions you|sentences?|"
    r"your (?:review|request|response|question)s?|honest,? personal|personal review|plain words)\b",
    re.IGNORECASE,
)
_SHINGLE = 4
"""Words that texts are compared by."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(_Table):
    """Things to have an opinion on, and beginnings of sentences about them, in which {} stands for the thing."""

    names: tuple[str, ...] = Field(min_length=1)
    patterns: tuple[str, ...] = Field(min_length=1)


class WritingConfig(_Table):
    """A file of openings: the model that continues them, what it is asked for, and the openings by subject."""

    model: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    instruction: str
    """What the model is asked for, with {tone} and {name}."""
    tones: tuple[str, ...] = Field(min_length=1)
    temperature: float = Field(gt=0.0)
    tokens: int = Field(ge=1)
    """Sampled after each opening, at most."""
    least_tokens: int = Field(ge=1)
    """The same, at least."""
    subjects: dict[str, Subject] = Field(min_length=1)


@dataclass(frozen=True)
class Opening:
    """The beginning of a text, and what the model is asked for before it."""

    text: str
    subject: str
    tone: str
    instruction: str


def load_writing_config(file: Path) -> WritingConfig:
    """Read a file of openings. Raises CorpusError where it cannot be read or a key is missing or wrong."""
    try:
        return WritingConfig.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise CorpusError(f"{file}: cannot be read ({error.strerror}); pass a TOML file of openings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: not valid TOML ({error}); fix that line") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CorpusError(f"{file}: {key}: {first['msg']}; see precompute/presets/written/openings.toml") from error


class OpeningDraws:
    """Draws openings without end: every one of a share once, in an order by the seed, then all again in the next tone.

    No opening of the held-out share is in the other.
    """

    def __init__(self, config: WritingConfig, *, held_out_share: float, seed: int) -> None:
        self._config = config
        every = [
            (subject, name, pattern.replace("{}", name))
            for subject, found in config.subjects.items()
            for name in found.names
            for pattern in found.patterns
        ]
        random.Random(seed).shuffle(every)
        n_held_out = max(1, round(held_out_share * len(every)))
        self.key = f"{seed} {n_held_out}"
        """What the draws depend on beside the openings."""
        self._shares = {"held-out": every[:n_held_out], "train": every[n_held_out:]}

    def draw(self, share: str, start: int, n: int) -> list[Opening]:
        """Return the openings `start` to `start + n` of a share, `train` or `held-out`."""
        every, tones = self._shares[share], self._config.tones
        drawn = []
        for i in range(start, start + n):
            turn, at = divmod(i, len(every))
            subject, name, text = every[at]
            tone = tones[(at + turn) % len(tones)]
            instruction = self._config.instruction.replace("{tone}", tone).replace("{name}", name)
            drawn.append(Opening(text, subject, tone, instruction))
        return drawn


class TextFilter:
    """Says why a text that a model wrote is left out; remembers those it has passed, to find near-duplicates."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def find_fault(self, opening: str, continuation: str) -> str | None:
        """Return why a text is left out, None where it is kept.

        It is left out where it repeats itself or earlier texts (a third of its runs of four words), names people or
        works, is about writing or an assistant, has other than plain letters, or should not be published.
        """
        text = opening + continuation
        words = re.findall(r"[\w'’]+", continuation.lower())
        shingles = list(zip(*(words[k:] for k in range(_SHINGLE)), strict=False))
        if not _PLAIN.fullmatch(text) or "\n" in text.strip() or "_" in text or not shingles:
            return "not plain text"
        if objection := find_objection(text):
            return objection
        if _OF_ASSISTANTS.search(continuation):
            return "about writing or an assistant"
        if _NAMES.search(text):
            return "names people or works"
        if len(set(shingles)) < 0.85 * len(shingles):
            return "repeats itself"
        if sum(shingle in self._seen for shingle in shingles) > len(shingles) / 3:
            return "repeats earlier texts"
        self._seen.update(shingles)
        return None
