"""Every question that is asked of a bundle, a module per subject: all SQL is here, and values are only ever bound."""

from lfp.bundle.queries import audits, common, feature, features, ledgers, run, texts, words

__all__ = ["audits", "common", "feature", "features", "ledgers", "run", "texts", "words"]
