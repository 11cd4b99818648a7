"""Audits: what people say of features and their labels, kept apart from the bundle and never overwritten."""

from lfp.audit.agreement import Agreement, agreement, cohens_kappa, share_interval
from lfp.audit.exchange import Imported, human_table, list_table, read_file, verdict_table
from lfp.audit.records import ANSWERS, VERDICTS, AuditList, BundleKey, Verdict, key_of, newest, open_to
from lfp.audit.remarks import Remark, newest_remarks, remark_table
from lfp.audit.store import AUDIT_URL, AuditStore, default_url

__all__ = [
    "ANSWERS", "AUDIT_URL", "VERDICTS", "Agreement", "AuditList", "AuditStore", "BundleKey", "Imported", "Remark",
    "Verdict", "agreement", "cohens_kappa", "default_url", "human_table", "key_of", "list_table", "newest",
    "newest_remarks", "open_to", "read_file", "remark_table", "share_interval", "verdict_table",
]  # fmt: skip
