"""The exception tree. The type names the boundary that broke; the message says what was given, what is accepted, what to do.

InterplayError
  InputError            the user's input: the command line prints one line and exits with 1
    ConfigError         a flag or a TOML field
    DataError           a corpus file, a record, a data directory
    RunError            a Run directory: not empty, other config, not a Run
    CheckpointError     a model directory: missing, of the other role, without our tokens
    MissingExtra        an optional package is not installed
  BackendError          a backend could not answer; ends the dialogue as backend-failure, owed again on resume
  ContextOverflow       the conversation no longer fits the model's context; ends the dialogue as context-overflow
  FormatError           a model's output could not be read as a turn; ends the dialogue as format-failure
"""

from pathlib import Path


class InterplayError(Exception):
    """Everything this package raises on purpose."""


class InputError(InterplayError):
    """The user's input is at fault; the message is one line and says how to mend it."""


class ConfigError(InputError):
    """A flag or a field of a TOML file is unknown, missing or of the wrong type."""


class DataError(InputError):
    """A data file or directory is missing, damaged or of another kind than was said."""


class RunError(InputError):
    """A Run directory can't be used as asked."""


class CheckpointError(InputError):
    """A model path does not hold what was asked for."""


class MissingExtra(InputError):
    """An optional package is needed that is not installed."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(f"{why} needs the package {package!r}, which is not installed: pip install 'interplay[{extra}]'")


class BackendError(InterplayError):
    """A backend or a recommender that somebody brought along gave no answer that could be used.

    What a model says badly is a FormatError instead: it is the model's own doing, and counts.

    Attributes:
        kind: one of `KINDS`; each is counted by itself.
    """

    KINDS = (
        "connection",
        "timeout",
        "throttled",
        "not-found",
        "refused",
        "server-error",
        "not-json",
        "wrong-form",
        "unknown-item",
        "raised",
        "other",
    )

    def __init__(self, message: str, *, kind: str = "other") -> None:
        if kind not in self.KINDS:
            raise ValueError(f"unknown kind {kind!r}; accepted: {', '.join(self.KINDS)}")
        super().__init__(message)
        self.kind = kind

    @classmethod
    def kind_of_status(cls, status: int) -> str:
        """The kind of an HTTP status that is no success.

        >>> BackendError.kind_of_status(404), BackendError.kind_of_status(500)
        ('not-found', 'server-error')
        """
        if status in (429, 503):
            return "throttled"
        if status == 404:
            return "not-found"
        return "server-error" if status >= 500 else "refused"


class ContextOverflow(InterplayError):
    """A prompt and the tokens asked for exceed what the model or its memory can hold."""


class FormatError(InterplayError):
    """A model's output is not a turn of the format.

    Attributes:
        reason: one of `REASONS`.
        raw: the exact output.
    """

    REASONS = (
        "empty-output",
        "no-action",
        "unknown-action",
        "action-of-other-role",
        "no-response",
        "unclosed-title",
        "empty-title",
        "stray-tag",
        "cut-off",
        "no-reasoning",
        "no-ranking",
        "no-score",
        "unknown-candidate",
        "empty-text",
        "stray-text",
    )

    def __init__(self, reason: str, raw: str) -> None:
        if reason not in self.REASONS:
            raise ValueError(f"unknown reason {reason!r}; accepted: {', '.join(self.REASONS)}")
        super().__init__(f"{reason}: {raw[:200]!r}")
        self.reason = reason
        self.raw = raw


def no_such_directory(path: Path, what: str, todo: str) -> DataError:
    """The error for a directory that is not there: `what` it should hold, `todo` the command that makes one."""
    return DataError(f"{path} is not a directory; expected {what}. {todo}")
