"""Answers kept on disk, a file each, so that nothing is asked or paid twice."""

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
