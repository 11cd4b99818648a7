"""The tables of an audit database, in SQL that every database knows. Verdicts are only ever added."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from lfp.audit.records import ANSWERS, VERDICTS

METADATA = MetaData()


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


bundles = Table(
    "audit_bundles",
    METADATA,
    Column("bundle", String(80), primary_key=True),
    Column("bundle_id", String(64), nullable=False),
    Column("features_hash", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("first_seen", String(32), nullable=False),
)
verdicts = Table(
    "audit_verdicts",
    METADATA,
    Column("row_id", Integer, primary_key=True, autoincrement=True),
    Column("uid", String(36), nullable=False, unique=True),
    Column("bundle", ForeignKey(bundles.c.bundle), nullable=False),
    Column("feature_id", Integer, nullable=False),
    Column("reviewer", String(80), nullable=False),
    Column("verdict", String(16)),
    Column("related", String(16)),
    Column("confidence", Float),
    Column("tags", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("labeller", Text),
    Column("label", Text),
    Column("is_blind", Boolean, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("supersedes", String(36)),
    _one_of("verdict", VERDICTS),
    _one_of("related", ANSWERS),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_share"),
    Index("audit_verdicts_of", "bundle", "feature_id", "reviewer"),
)
lists = Table(
    "audit_lists",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("bundle", ForeignKey(bundles.c.bundle), nullable=False),
    Column("name", String(80), nullable=False),
    Column("origin", Text, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("bundle", "name", name="audit_lists_names"),
)
items = Table(
    "audit_list_items",
    METADATA,
    Column("list_uid", ForeignKey(lists.c.uid, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("feature_id", Integer, nullable=False),
)
