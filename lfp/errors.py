"""The errors people meet: one type a kind, one sentence each (what, where, the mend), and its exit code."""


class LfpError(Exception):
    """Base of every error this project raises on purpose. `exit_code` is what a command ends with."""

    exit_code = 1


class ConfigError(LfpError):
    """The arguments or the config are wrong; nothing was started."""

    exit_code = 2


class CorpusError(LfpError):
    """The texts cannot be used: no file, no text column, no rows."""


class ModelError(LfpError):
    """A model cannot be found, loaded or fed."""


class TrainingError(LfpError):
    """A training job went wrong: a loss that is not a number, a reward of the wrong shape."""


class DataError(LfpError):
    """Numbers that cannot be worked with: constant feedback, no held-out word, an activation that is not finite."""


class BundleError(LfpError):
    """A bundle is missing, broken, of another version, or cannot be written."""


class NotInBundleError(BundleError):
    """A feature, text or probe was asked for that the bundle does not hold."""


class LabelError(LfpError):
    """A language model cannot be asked: its server refuses the key, does not know the model, or has no credit left."""


class AuditError(LfpError):
    """Verdicts cannot be read or kept: a full disk, a database out of reach, a file that is none of ours."""


class DependencyError(LfpError):
    """A package is missing that only some commands need."""
