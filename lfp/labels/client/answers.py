"""What answers cost and where they are kept: a budget in dollars, and a cache on disk so that nothing is paid twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lfp.errors import LabelError


class KeptAnswer(BaseModel):
    """What a file holds: the answer, what it took, and when it came (UTC). Neither prompt nor server nor key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: dict[str, Any]
    tokens: int
    cost_usd: float
    answered_at: str


class AnswerCache:
    """Kept answers by the hash of what was asked. Without a folder it holds none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, sha256: str) -> KeptAnswer | None:
        """The answer kept; None where there is none. Raises LabelError where the file is broken."""
        if self._folder is None:
            return None
        file = self._file(self._folder, sha256)
        try:
            return KeptAnswer.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise LabelError(f"{file}: is no kept answer; delete it, and the question is asked again") from error

    def put(self, sha256: str, answer: KeptAnswer) -> None:
        """Keeps an answer: the file is whole or is not there."""
        if self._folder is None:
            return
        file = self._file(self._folder, sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        writing = file.with_suffix(f".{os.getpid()}.writing")
        writing.write_text(answer.model_dump_json(), encoding="utf-8")
        writing.replace(file)

    @staticmethod
    def _file(folder: Path, sha256: str) -> Path:
        return folder / sha256[:2] / f"{sha256}.json"


_PER_MILLION = 1e-6


class Budget:
    """Dollars that are never passed: `spent_usd` and what is set aside stay within `usd` together.

    `price_in` and `price_out` are dollars a million tokens read and written. The promise rests on the worst case being
    one: a server that writes more tokens than it was allowed is counted in full, after the fact.
    """

    def __init__(self, usd: float, *, price_in: float, price_out: float) -> None:
        self.usd, self.spent_usd = usd, 0.0
        self._price_in, self._price_out = price_in, price_out
        self._set_aside_usd, self._open = 0.0, 0

    @property
    def idle(self) -> bool:
        """Whether nothing is set aside, so that waiting will free nothing."""
        return self._open == 0

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """The price of so many tokens read and written."""
        return (tokens_in * self._price_in + tokens_out * self._price_out) * _PER_MILLION

    def fits(self, usd: float) -> bool:
        """Whether so much can be set aside."""
        return self.spent_usd + self._set_aside_usd + usd <= self.usd

    def set_aside(self, usd: float) -> None:
        """Keeps so much for a call; to be settled once."""
        self._set_aside_usd += usd
        self._open += 1

    def settle(self, set_aside_usd: float, spent_usd: float) -> None:
        """Replaces what was set aside for a call by what it cost."""
        self._open -= 1
        self._set_aside_usd = 0.0 if self.idle else self._set_aside_usd - set_aside_usd
        self.spent_usd += spent_usd
