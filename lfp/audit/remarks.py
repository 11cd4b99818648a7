"""Remarks: verdicts and comments on a text, pair, word or finding, which unlike features have no label to judge."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from lfp.audit.records import VERDICTS, BundleKey
from lfp.errors import AuditError
from lfp.util.sanitize import visible

KINDS = ("text", "pair", "word", "finding")
"""What a remark can be on."""
_NAME, _SUBJECT, _WORDS = 80, 200, 10_000
_COLUMNS = ("kind", "subject", "reviewer", "verdict", "note", "is_blind", "created_at", "uid")


@dataclass(frozen=True)
class Remark:
    """One reviewer's verdict and comment on one subject at one time; the store sets the last two fields."""

    kind: str
    """From KINDS."""
    subject: str
    """The number of a text or a pair, a word, or what a finding is called by the page that shows it."""
    reviewer: str
    verdict: str | None = None
    """From VERDICTS; None for a comment alone."""
    note: str = ""
    is_blind: bool = False
    """Whether the verdict was given before scores and credits were shown."""
    uid: str = ""
    created_at: str = ""
    """UTC, as in 2026-11-28T20:15:00.000000Z, so that text sorts by time."""


def checked_remark(remark: Remark) -> Remark:
    """Return the remark with spaces trimmed. Raises AuditError that names the wrong field."""
    name, note = " ".join(visible(remark.reviewer).split()), remark.note.strip().replace("\x00", "")
    if not 0 < len(name) <= _NAME:
        raise AuditError(f"the reviewer’s name has {len(name)} characters; give 1 to {_NAME}")
    if remark.kind not in KINDS:
        raise AuditError(f"kind is {remark.kind!r}; it may be {', '.join(KINDS)}")
    if not 0 < len(remark.subject) <= _SUBJECT or "\x00" in remark.subject:
        raise AuditError(f"the subject has {len(remark.subject)} characters; give 1 to {_SUBJECT}, none of them NUL")
    if remark.verdict is not None and remark.verdict not in VERDICTS:
        raise AuditError(f"verdict is {remark.verdict!r}; it may be {', '.join(VERDICTS)} or nothing")
    if len(note) > _WORDS:
        raise AuditError(f"a comment may have {_WORDS:,} characters; shorten it")
    if remark.verdict is None and not note:
        raise AuditError("the remark is empty; give a verdict or write a comment")
    return replace(remark, reviewer=name, note=note, uid=remark.uid or str(uuid.uuid4()))


def newest_remarks(remarks: Iterable[Remark]) -> dict[tuple[str, str, str], Remark]:
    """Return the last remark by kind, subject and reviewer. `remarks` are oldest first."""
    return {(remark.kind, remark.subject, remark.reviewer): remark for remark in remarks}


def remark_table(bundle: BundleKey, remarks: Iterable[Remark]) -> pa.Table:
    """Return remarks as rows that name their bundle."""
    key = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    schema = pa.schema([(name, pa.bool_() if name == "is_blind" else pa.string()) for name in (*key, *_COLUMNS)])
    return pa.Table.from_pylist([{**key, **vars(remark)} for remark in remarks], schema=schema)
