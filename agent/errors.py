"""What can go wrong before an engine is asked, one class a cause; the docstring's first line is the default message.

    AgentError
    ├── Malformed          the body is not a JSON object
    ├── Unauthenticated    no token, or one that is not known
    ├── Forbidden          the token's role or scope does not allow it
    ├── DatabaseNotFound   no such database id, or one outside the token's scope: the two look the same
    ├── ResourceNotFound   an id of something else that dbvalet keeps
    │   ├── OperationNotFound
    │   ├── BackupNotFound
    │   ├── RestorationNotFound
    │   ├── ArchiveNotFound
    │   ├── ApplicationNotFound
    │   ├── ProviderNotFound
    │   ├── PlanNotFound
    │   ├── TypeNotFound
    │   ├── VersionNotFound
    │   ├── MaintenanceNotFound
    │   └── CertificateNotFound
    ├── NotSupported       dbvalet has no such thing, or not for this engine: says why
    ├── OperationOpen      another operation is in progress on the database
    ├── OperationEnded     it has ended: there is nothing to cancel
    ├── BackupUnfinished   a backup that is not done has no archive
    ├── LinkInvalid        a download link is expired or was changed
    ├── RangeInvalid       a download was asked to begin behind its end
    ├── Interrupted        an operation was cut off, and what it had begun was undone
    │   └── LeftBehind     … but something could not be undone yet
    ├── OperationLost      another dbvalet has taken an operation over: this one must not go on
    ├── UnknownAction      this engine has no such action
    ├── TooLarge           the body is over the limit
    ├── ListTooLarge       … a list is too long for one answer
    ├── HeadTooLarge       … or what stands before it
    ├── RateLimited        the token has used up its rate
    ├── Overloaded         too many requests are at work on the database: this one was not begun
    ├── KeyInProgress      a request with this `Idempotency-Key` is being carried out
    ├── AnswerUnknown      what became of an earlier request with this `Idempotency-Key` cannot be told, or not again
    ├── BackupFirst        the backup before what was asked for is being made: nothing was destroyed yet
    ├── BackupFirstFailed  … it failed: nothing was destroyed
    ├── StateUnavailable   what would be done cannot be written down, so it is not done
    ├── (StateFailed)      the state failed in the middle of it: a Precondition to whoever catches one
    ├── (StorageFailed)    the storage of backups failed, and nothing is changed: a Precondition too
    ├── NotReady           the service is starting or being stopped
    └── SettingsError      the configuration is wrong: ends the start

`agent.api.errors` turns `code` into a status, in that one place.
"""

from __future__ import annotations

from engines.errors import Precondition, default_message


class AgentError(Exception):
    """This cannot be done."""

    code = "internal"

    def __init__(self, message: str | None = None) -> None:
        self.message = message or default_message(type(self))
        super().__init__(self.message)


class Malformed(AgentError):
    """The body must be a JSON object, in UTF-8."""

    code = "malformed"


class Unauthenticated(AgentError):
    """A valid token is needed: `Authorization: Bearer TOKEN`."""

    code = "unauthenticated"


class Forbidden(AgentError):
    """This token does not allow it."""

    code = "forbidden"


class DatabaseNotFound(AgentError):
    """There is no database of this id."""

    code = "not_found"
    resource = "database"


class ResourceNotFound(AgentError):
    """There is nothing of this id."""

    code = "not_found"
    resource = "object"


class OperationNotFound(ResourceNotFound):
    """There is no operation of this id on this database."""

    resource = "operation"


class BackupNotFound(ResourceNotFound):
    """There is no backup of this id."""

    resource = "backup"


class RestorationNotFound(ResourceNotFound):
    """There is no restoration of this id on this database."""

    resource = "backup restoration"


class ArchiveNotFound(ResourceNotFound):
    """The archive of this backup is not in the storage any more."""

    resource = "archive"


class ApplicationNotFound(ResourceNotFound):
    """There is no application of this name."""

    resource = "application"


class ProviderNotFound(ResourceNotFound):
    """There is no addon provider of this id."""

    resource = "addon provider"


class PlanNotFound(ResourceNotFound):
    """There is no plan of this name."""

    resource = "plan"


class TypeNotFound(ResourceNotFound):
    """There is no database type of this id."""

    resource = "database type"


class VersionNotFound(ResourceNotFound):
    """No database of this token has a version of this id."""

    resource = "database type version"


class MaintenanceNotFound(ResourceNotFound):
    """There is no maintenance of this id: dbvalet plans none."""

    resource = "maintenance"


class CertificateNotFound(ResourceNotFound):
    """No CA certificate is declared: `ca_certificate` of the configuration names its file."""

    resource = "CA certificate"


class NotSupported(AgentError):
    """This is not supported here."""

    code = "not_supported"


class OperationOpen(AgentError):
    """Another operation is in progress on this database."""

    code = "conflict"
    passes = True
    """Whether it is no answer of an `Idempotency-Key`: this one is not begun."""


class OperationEnded(AgentError):
    """This operation has ended: there is nothing to cancel."""

    code = "conflict"


class BackupUnfinished(AgentError):
    """This backup is not done: it has nothing to download or to restore."""

    code = "conflict"


class LinkInvalid(AgentError):
    """This link has expired, is not as it was given, or its token does not allow it any more: ask for a new one."""

    code = "forbidden"


class RangeInvalid(AgentError):
    """The range begins behind the end of the file."""

    code = "range_not_satisfiable"

    def __init__(self, message: str | None = None, *, size: int = 0) -> None:
        """`size`: bytes of the whole file."""
        self.size = size
        super().__init__(message)


class Interrupted(AgentError):
    """dbvalet ended in the middle of it; what it had begun was undone."""


class LeftBehind(Interrupted):
    """dbvalet ended in the middle of it; what it had begun is undone when the engine can be reached."""


class OperationLost(AgentError):
    """Another dbvalet has taken this operation over."""


class UnknownAction(AgentError):
    """This engine has no such action."""

    code = "unknown_action"
    resource = "action"


class TooLarge(AgentError):
    """The body is larger than 1 MiB."""

    code = "too_large"


class ListTooLarge(TooLarge):
    """The list is larger than 16 MiB: ask for it in smaller parts, with page and per_page."""


class HeadTooLarge(AgentError):
    """The target and the headers are larger than 64 KiB together, or there are more than 100 headers."""

    code = "head_too_large"


class RateLimited(AgentError):
    """Too many requests with this token."""

    code = "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after: int) -> None:
        """`retry_after`: whole seconds until the next request is allowed."""
        self.retry_after = retry_after
        super().__init__(message)


class Overloaded(AgentError):
    """Too many requests are at work on this database: nothing was begun."""

    code = "overloaded"

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        """`retry_after`: whole seconds after which to try again."""
        self.retry_after = retry_after
        super().__init__(message)


class KeyInProgress(AgentError):
    """A request with this `Idempotency-Key` is being carried out: ask again for its answer."""

    code = "in_progress"
    retry_after = 1


class BackupFirst(AgentError):
    """The backup before it is being made, and nothing was destroyed yet: ask again."""

    code = "in_progress"
    retry_after = 2


class BackupFirstFailed(AgentError):
    """Nothing was destroyed, because the backup before it failed."""

    code = "precondition"


class AnswerUnknown(AgentError):
    """What became of a request with this `Idempotency-Key` cannot be told, or not again, or another took it over."""

    code = "answer_unknown"


class StateUnavailable(AgentError):
    """The state cannot be used, and nothing is changed that is not written down."""

    code = "state_unavailable"
    retry_after = 5
    """Seconds after which to look again."""


class StateFailed(Precondition):
    """The state cannot be used: what it was asked for may have been done all the same."""

    code = StateUnavailable.code
    retry_after = StateUnavailable.retry_after


class StorageFailed(Precondition):
    """The storage of backups cannot be used, and what was asked for may be asked again."""

    passes = True
    """Whether it is no answer of an `Idempotency-Key`: nothing is changed, or what is can be done again."""


class NotReady(AgentError):
    """The service is starting or being stopped."""

    code = "not_ready"
    retry_after = 1
    """Seconds after which to look again."""


class SettingsError(AgentError):
    """The configuration is wrong."""

    code = "settings"

    def __init__(self, key: str, text: str) -> None:
        """`key` is the path in the configuration, `databases.0.url`; the text never quotes a value."""
        self.key = key
        super().__init__(f"{key}: {text}")
