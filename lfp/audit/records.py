"""Records of an audit: verdicts, lists of features, and the bundle that they are about."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from lfp.bundle.manifest import Manifest
from lfp.errors import AuditError
from lfp.util.sanitize import visible

VERDICTS = ("right", "partly", "wrong", "unsure")
"""Answers to whether a label is right."""
ANSWERS = ("yes", "no", "unsure")
"""Answers to whether a feature is related to the feedback."""
_NAME, _TAG, _TAGS, _WORDS = 80, 40, 20, 10_000
_FEATURES = ("features", "decoders")


@dataclass(frozen=True)
class BundleKey:
    """The features that verdicts are about: a run, and a hash over its tables of features.

    New labels leave the key as it is, so verdicts stay; each holds the label that it judged.
    """

    bundle_id: str
    features_hash: str
    title: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The key as one word."""
        return f"{self.bundle_id}-{self.features_hash}"


@dataclass(frozen=True)
class Verdict:
    """One reviewer's opinion of one feature at one time; `checked` checks it, the store sets the last three fields."""

    feature_id: int
    reviewer: str
    verdict: str | None = None
    """From VERDICTS; None where the label was not judged."""
    related: str | None = None
    """From ANSWERS; None where it was not answered."""
    confidence: float | None = None
    """0 to 1."""
    tags: tuple[str, ...] = ()
    note: str = ""
    description: str = ""
    """What the feature fires on, in the reviewer's own words."""
    labeller: str | None = None
    label: str | None = None
    """The description that was judged, as it read then."""
    is_blind: bool = False
    """Whether `related` was answered before the label was shown."""
    uid: str = ""
    created_at: str = ""
    """UTC, as in 2026-11-28T20:15:00.000000Z, so that text sorts by time."""
    supersedes: str | None = None
    """The uid of the same reviewer's verdict before it."""

    @property
    def is_review(self) -> bool:
        """Whether it answers a question; a note alone is no review."""
        return self.verdict is not None or self.related is not None


@dataclass(frozen=True)
class AuditList:
    """Features to review, in order, and a description of where they come from."""

    name: str
    feature_ids: tuple[int, ...]
    origin: str = ""
    created_by: str = ""
    created_at: str = ""
    uid: str = ""


def key_of(manifest: Manifest) -> BundleKey:
    """Return the key of a bundle's features."""
    hashes = [manifest.tables[name].sha256 for name in _FEATURES if name in manifest.tables]
    return BundleKey(manifest.bundle_id, hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16], manifest.title)


def checked(verdict: Verdict) -> Verdict:
    """Return the verdict with spaces trimmed and tags sorted. Raises AuditError that names the wrong field."""
    if not 0 < len(name := _line(verdict.reviewer)) <= _NAME:
        raise AuditError(f"the reviewer’s name has {len(name)} characters; give 1 to {_NAME}")
    for field_name, value, allowed in (("verdict", verdict.verdict, VERDICTS), ("related", verdict.related, ANSWERS)):
        if value is not None and value not in allowed:
            raise AuditError(f"{field_name} is {value!r}; it may be {', '.join(allowed)} or nothing")
    sure = verdict.confidence
    if sure is not None and not (math.isfinite(sure) and 0 <= sure <= 1):
        raise AuditError(f"confidence is {sure}; give a number from 0 to 1")
    if verdict.feature_id < 0:
        raise AuditError(f"feature_id is {verdict.feature_id}; give a feature’s number")
    tags = tuple(sorted({_line(tag).lower() for tag in verdict.tags} - {""}))
    if len(tags) > _TAGS or any(len(tag) > _TAG for tag in tags):
        raise AuditError(f"there may be {_TAGS} tags of {_TAG} characters each; shorten them")
    note, words = verdict.note.strip(), verdict.description.strip()
    if max(len(note), len(words)) > _WORDS:
        raise AuditError(f"a note may have {_WORDS:,} characters; shorten it")
    if not (verdict.is_review or note or words or tags):
        raise AuditError("the verdict is empty; answer a question or write a note")
    note, words = note.replace("\x00", ""), words.replace("\x00", "")
    uid = verdict.uid or str(uuid.uuid4())
    return replace(verdict, reviewer=name, tags=tags, note=note, description=words, uid=uid)


def checked_list(found: AuditList) -> AuditList:
    """Return the list with its name trimmed and every feature once. Raises AuditError."""
    name = _line(found.name)
    if not 0 < len(name) <= _NAME:
        raise AuditError(f"the list’s name has {len(name)} characters; give 1 to {_NAME}")
    if not found.feature_ids:
        raise AuditError(f"the list {name} would be empty; widen what it is made from")
    ids, uid = tuple(dict.fromkeys(found.feature_ids)), found.uid or str(uuid.uuid4())
    return replace(found, name=name, feature_ids=ids, created_by=_line(found.created_by)[:_NAME], uid=uid)


def newest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the last verdict of each reviewer on each feature. `verdicts` are oldest first."""
    return list({(verdict.feature_id, verdict.reviewer): verdict for verdict in verdicts}.values())


def open_to(verdicts: Iterable[Verdict], reviewer: str, feature_ids: Sequence[int]) -> list[int]:
    """Return the features of a list that a reviewer has not reviewed, in order. `verdicts` are the newest."""
    done = {verdict.feature_id for verdict in verdicts if verdict.reviewer == reviewer and verdict.is_review}
    return [feature_id for feature_id in feature_ids if feature_id not in done]


def _line(text: str) -> str:
    return " ".join(visible(text).split())
