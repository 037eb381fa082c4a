"""What can go wrong with a server, one class a cause; the docstring's first line is the default message.

    EngineError
    ├── InvalidParams            the params do not fit the action's schema, or name what the engine does not know
    │   └── OutsideWindow        an instant that cannot be recovered: says which can
    ├── Protected                a system object, or the deployment's own
    ├── PrivilegeMissing         the account may not do it: names the privilege and the GRANT
    ├── NotFound                 the named thing is not there
    │   ├── LogicalDatabaseNotFound
    │   ├── BackendNotFound
    │   ├── RetentionPolicyNotFound
    │   └── UserNotFound
    ├── AlreadyExists            the name is taken
    ├── Precondition             the server is not set up for it: says what to set
    ├── Conflict                 the state of the object forbids it just now
    │   └── BackendReplaced      another backend has the process id by now
    ├── EngineUnavailable        unreachable, refusing the account, or every connection in use
    │   └── ConnectionLost       cut while work was under way: its outcome must be looked up
    ├── DeadlineExceeded         the time is up; the work was stopped in the engine as far as the text says
    │   └── StillRunning         a signalled query went on running
    └── BackupFailed             a tool that dumps or restores failed; the text ends with its own words
        ├── BackupDamaged        a backup is not as it was written
        └── RecoveryFailed       the server did not come back as it was to: says what it said
            └── RecoveryRefused  the restore was refused before it changed anything

InvalidParams, Protected and PrivilegeMissing also say that nothing was done: after them the same `Idempotency-Key` may
ask again. Where a part was done, or the engine said that all is and cannot be asked whether, it is Conflict.

A cause is raised where it is known. `agent.api.errors` turns `code` into a status, in that one place.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence


class EngineError(Exception):
    """The engine could not do this."""

    code: str = "internal"
    """Stable identifier that clients may test."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message or default_message(type(self))
        super().__init__(self.message)


def default_message(cause: type[BaseException]) -> str:
    """Give the first line of a cause's docstring."""
    return (inspect.getdoc(cause) or cause.__name__).splitlines()[0]


class InvalidParams(EngineError):
    """These params do not fit the action."""

    code = "invalid_params"

    def __init__(self, errors: Mapping[str, Sequence[str]], message: str | None = None) -> None:
        """`errors` maps a field to what is wrong with it; a bare value (no object) is the field `params`."""
        self.errors = {field: list(texts) for field, texts in errors.items()}
        super().__init__(
            message or "; ".join(f"{field}: {text}" for field, texts in self.errors.items() for text in texts)
        )


class OutsideWindow(InvalidParams):
    """This instant cannot be recovered."""

    def __init__(self, message: str | None = None) -> None:
        text = message or default_message(type(self))
        super().__init__({"restore_time": [text]}, text)


class Protected(EngineError):
    """This object is protected: it belongs to the system or is the deployment's own."""

    code = "protected"


class PrivilegeMissing(EngineError):
    """The engine account lacks a privilege for this."""

    code = "privilege_missing"

    def __init__(self, message: str | None = None, *, privilege: str | None = None) -> None:
        """`privilege` names what is missing where the cause is known; `perform` finds it out otherwise."""
        self.privilege = privilege
        super().__init__(message)


class NotFound(EngineError):
    """There is no such thing."""

    code = "not_found"
    resource = "object"
    """What was not found, in the words of a user."""


class LogicalDatabaseNotFound(NotFound):
    """There is no logical database of this name."""

    resource = "logical database"


class BackendNotFound(NotFound):
    """There is no client backend with this process id in this database."""

    resource = "backend"


class RetentionPolicyNotFound(NotFound):
    """There is no retention policy of this name."""

    resource = "retention policy"


class UserNotFound(NotFound):
    """There is no user of this name."""

    resource = "user"


class AlreadyExists(EngineError):
    """This name is taken."""

    code = "already_exists"


class Precondition(EngineError):
    """The server is not set up for this."""

    code = "precondition"


class Conflict(EngineError):
    """The state of the object does not allow this now."""

    code = "conflict"


class BackendReplaced(Conflict):
    """Another backend has this process id by now; nothing was signalled."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached."""

    code = "engine_unavailable"
    retry_after = 5
    """Seconds after which another try makes sense."""


class ConnectionLost(EngineUnavailable):
    """The connection was cut while the engine was working: whether it finished is not known."""


class DeadlineExceeded(EngineError):
    """The time for this action is up."""

    code = "deadline_exceeded"


class StillRunning(DeadlineExceeded):
    """The query was signalled and is still running: it catches the signal or cannot be interrupted just now."""


class BackupFailed(EngineError):
    """The backup or the restore failed."""


class BackupDamaged(BackupFailed):
    """This backup is not as it was written."""


class RecoveryFailed(BackupFailed):
    """The server did not come back as it was to."""


class RecoveryRefused(RecoveryFailed):
    """The restore was refused before it changed anything."""
