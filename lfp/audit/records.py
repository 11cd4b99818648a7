"""What an audit holds: verdicts, lists of features, and which bundle they are about."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lfp.bundle.manifest import Manifest
from lfp.errors import AuditError
from lfp.util.sanitize import visible

VERDICTS = ("right", "partly", "wrong", "unsure")
"""What may be said of a label."""
ANSWERS = ("yes", "no", "unsure")
"""What may be said of whether a feature is related to the feedback."""
_NAME, _TAG, _TAGS, _WORDS = 80, 40, 20, 10_000
_FEATURES = ("features", "decoders")


@dataclass(frozen=True)
class BundleKey:
    """The features that verdicts are about: a run, and a hash over what its features are and do.

    Labelling a bundle anew leaves the key as it is, so that verdicts stay; each holds the label it judged.
    """

    bundle_id: str
    features_hash: str
    title: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Both in one word."""
        return f"{self.bundle_id}-{self.features_hash}"


@dataclass(frozen=True)
class Verdict:
    """What one reviewer says of one feature at one time. Checked by `checked`; the store sets the last three fields."""

    feature_id: int
    reviewer: str
    verdict: str | None = None
    """One of VERDICTS; None where the label was not judged."""
    related: str | None = None
    """One of ANSWERS; None where it was not said."""
    confidence: float | None = None
    """0 to 1."""
    tags: tuple[str, ...] = ()
    note: str = ""
    description: str = ""
    """What it fires on in the reviewer's own words."""
    labeller: str | None = None
    label: str | None = None
    """The description that was judged, as it read then."""
    is_blind: bool = False
    """Whether `related` was said before the label was seen."""
    uid: str = ""
    created_at: str = ""
    """UTC, as in 2026-11-28T20:15:00.000000Z, so that text sorts by time."""
    supersedes: str | None = None
    """The uid of the same reviewer's verdict before it."""

    @property
    def is_review(self) -> bool:
        """Whether it says anything that counts as a review; a note alone does not."""
        return self.verdict is not None or self.related is not None


@dataclass(frozen=True)
class AuditList:
    """Features to be reviewed, in order, and where they come from in words."""

    name: str
    feature_ids: tuple[int, ...]
    origin: str = ""
    created_by: str = ""
    created_at: str = ""
    uid: str = ""


def key_of(manifest: Manifest) -> BundleKey:
    """The key of a bundle's features."""
    hashes = [manifest.tables[name].sha256 for name in _FEATURES if name in manifest.tables]
    return BundleKey(manifest.bundle_id, hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16], manifest.title)


def checked(verdict: Verdict) -> Verdict:
    """The same with spaces trimmed and tags in order. Raises AuditError that names the field."""
    if not 0 < len(name := _line(verdict.reviewer)) <= _NAME:
        raise AuditError(f"the reviewer’s name has {len(name)} characters; give one of 1 to {_NAME}")
    _one_of("verdict", verdict.verdict, VERDICTS)
    _one_of("related", verdict.related, ANSWERS)
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
        raise AuditError("nothing was said of the feature; answer a question or write a note")
    return Verdict(
        verdict.feature_id, name, verdict.verdict, verdict.related, sure, tags, note.replace("\x00", ""),
        words.replace("\x00", ""), verdict.labeller, verdict.label, verdict.is_blind,
        verdict.uid or str(uuid.uuid4()), verdict.created_at, verdict.supersedes,
    )  # fmt: skip


def checked_list(found: AuditList) -> AuditList:
    """The same with its name trimmed and every feature once. Raises AuditError."""
    name = _line(found.name)
    if not 0 < len(name) <= _NAME:
        raise AuditError(f"the list’s name has {len(name)} characters; give one of 1 to {_NAME}")
    if not found.feature_ids:
        raise AuditError(f"the list {name} would be empty; widen what it is made from")
    ids = tuple(dict.fromkeys(found.feature_ids))
    return AuditList(
        name, ids, found.origin, _line(found.created_by)[:_NAME], found.created_at, found.uid or str(uuid.uuid4())
    )


def newest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The one of each reviewer and feature that counts: the last. `verdicts` are oldest first."""
    return list({(verdict.feature_id, verdict.reviewer): verdict for verdict in verdicts}.values())


def open_to(verdicts: Iterable[Verdict], reviewer: str, feature_ids: Sequence[int]) -> list[int]:
    """The features of a list that a reviewer has not reviewed, in the list's order. `verdicts` are the newest."""
    done = {one.feature_id for one in verdicts if one.reviewer == reviewer and one.is_review}
    return [feature_id for feature_id in feature_ids if feature_id not in done]


def _one_of(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise AuditError(f"{name} is {value!r}; it may be {', '.join(allowed)} or nothing")


def _line(text: str) -> str:
    return " ".join(visible(text).split())
