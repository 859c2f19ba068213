"""Every error that gristmill raises on purpose.

    GristmillError              1   anything that went wrong and is not listed below
    |-- ConfigError             2   a recipe, option or argument is wrong
    |-- InputError              2   what the user pointed at cannot be used (missing, empty, unreadable)
    |   `-- SourceGoneError     2   a source that snapshots were read from matches nothing any more
    |-- NotFoundError           2   a snapshot, run or file that the lake does not hold
    |-- GateError               3   a snapshot or release was refused by a gate
    |-- LakeError               1   the lake cannot be read or written (full disk, permissions, network)
    |   |-- CorruptError        1   bytes are not what the manifest says
    |   |-- ConflictError       1   somebody else committed this version first
    |   `-- BusyError           1   somebody else is building this corpus or training this run
    `-- Interrupted            75   stopped by Ctrl-C or SIGTERM; the same command goes on
        `-- OutOfTime          75   stopped at the limit of hours that it was given

A message says what was expected, what came, where, and what to do. The number is the exit code of the command line.
Messages end in terminals, logs and Prefect's states, so no credentials are in them, whatever they quote.
"""

from typing import Any, ClassVar

from storage.redaction import without_secrets


class GristmillError(Exception):
    """Base of the tree; shown to the user as one message, without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, *args: Any) -> None:
        super().__init__(*(without_secrets(a) if isinstance(a, str) else a for a in args))


class ConfigError(GristmillError):
    """A recipe, an option or an argument is wrong."""

    exit_code = 2


class InputError(GristmillError):
    """An input that the user named cannot be used."""

    exit_code = 2


class SourceGoneError(InputError):
    """A source that earlier snapshots read from matches nothing now."""

    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(message, source)  # both, so that it can be pickled
        self.source = source

    def __str__(self) -> str:
        return self.args[0]


class NotFoundError(GristmillError):
    """The lake holds no such snapshot, run or file."""

    exit_code = 2


class GateError(GristmillError):
    """A gate refused a snapshot or a release."""

    exit_code = 3


class LakeError(GristmillError):
    """The lake cannot be read or written."""


class CorruptError(LakeError):
    """Stored bytes differ from what the manifest says of them."""


class ConflictError(LakeError):
    """Another writer committed this version first."""


class BusyError(LakeError):
    """Another process holds the lock."""


class Interrupted(GristmillError):
    """Stopped on request; nothing is lost and the same command goes on."""

    exit_code = 75


class OutOfTime(Interrupted):
    """Stopped at the limit of hours that it was given; finished work is kept."""
