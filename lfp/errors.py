"""Errors that users see, a class per kind; each message is one sentence: what, where, how to fix it."""


class LfpError(Exception):
    """Base class of all errors raised on purpose; a command ends with `exit_code`."""

    exit_code = 1


class ConfigError(LfpError):
    """The arguments or the config are wrong; nothing was started."""

    exit_code = 2


class CorpusError(LfpError):
    """The texts cannot be used: no file, no text column, no rows."""


class ModelError(LfpError):
    """A model cannot be found, loaded or fed."""


class TrainingError(LfpError):
    """Training failed: a loss that is not a number, a reward of the wrong shape."""


class DataError(LfpError):
    """Numbers that cannot be used: constant feedback, no held-out word, an activation that is not finite."""


class TextError(DataError):
    """Numbers of a text that cannot be used; `row` is the text's place among those given, from 0.

    Who gave them knows it by another number, and says that: `precompute.run.inputs.name_texts`.
    """

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(f"text {row}: {problem}")
        self.row, self.problem = row, problem


class BundleError(LfpError):
    """A bundle is missing, broken, of another version, or cannot be written."""


class BundleChangedError(BundleError):
    """A bundle in an object store was replaced while it was open, or while another was written to its address."""


class NotInBundleError(BundleError):
    """The bundle does not hold the feature, text or probe."""


class LabelError(LfpError):
    """A language model cannot be used: its server refuses the key, does not know the model, or has no credit left."""


class AuditError(LfpError):
    """Verdicts cannot be read or saved: a full disk, an unreachable database, a file of another format."""


class ClusterError(LfpError):
    """A cluster cannot be reached, is not as the run needs it, or lost too many of its workers."""


class DependencyError(LfpError):
    """A package is missing that only some commands need."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or its type where it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
