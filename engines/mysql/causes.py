"""Which cause stands behind an error number: what the server refuses is told apart by this table alone."""

from __future__ import annotations

from engines import errors


class FileFailed(errors.EngineUnavailable):
    """The server could not read or write a file of its own, as its disk may be full."""


class NotPersisted(FileFailed):
    """The server could not write down a setting that it was to keep, as its disk may be full."""


class FileLeftBehind(errors.Conflict):
    """A file that the server does not know is in the directory of a logical database: only a hand can remove it."""


OF_FILES = range(1, 1000)
"""Numbers of the library below the server. https://dev.mysql.com/doc/mysql-errors/9.7/en/global-error-reference.html"""

CAUSES: dict[int, type[errors.EngineError]] = {
    # https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html; 2000 to 2999 are the client's own.
    # 1900 to 1999 are MariaDB's: https://mariadb.com/kb/en/mariadb-error-code-reference/
    1007: errors.AlreadyExists,  # DB_CREATE_EXISTS
    1008: errors.LogicalDatabaseNotFound,  # DB_DROP_EXISTS
    1049: errors.LogicalDatabaseNotFound,  # BAD_DB_ERROR
    1044: errors.PrivilegeMissing,  # DBACCESS_DENIED_ERROR
    1045: errors.PrivilegeMissing,  # ACCESS_DENIED_ERROR
    1142: errors.PrivilegeMissing,  # TABLEACCESS_DENIED_ERROR
    1143: errors.PrivilegeMissing,  # COLUMNACCESS_DENIED_ERROR
    1227: errors.PrivilegeMissing,  # SPECIFIC_ACCESS_DENIED_ERROR
    1370: errors.PrivilegeMissing,  # PROCACCESS_DENIED_ERROR
    3879: errors.PrivilegeMissing,  # DB_ACCESS_DENIED, partial revokes
    1059: errors.InvalidParams,  # TOO_LONG_IDENT, what MySQL says of a name
    1102: errors.InvalidParams,  # WRONG_DB_NAME, what MariaDB says of one that is too long
    1231: errors.InvalidParams,  # WRONG_VALUE_FOR_VAR
    1300: errors.InvalidParams,  # INVALID_CHARACTER_STRING, four bytes in a name on MariaDB
    3854: errors.InvalidParams,  # CANNOT_CONVERT_STRING
    3899: errors.InvalidParams,  # UNSUPPORTED_SQL_MODE, the bit of a mode that MySQL 8 removed
    1205: errors.DeadlineExceeded,  # LOCK_WAIT_TIMEOUT
    1969: errors.DeadlineExceeded,  # STATEMENT_TIMEOUT, MariaDB's max_statement_time
    3024: errors.DeadlineExceeded,  # QUERY_TIMEOUT, MySQL's max_execution_time
    1010: FileLeftBehind,  # DB_DROP_RMDIR, files of others in the directory
    1213: errors.Conflict,  # LOCK_DEADLOCK
    1217: errors.Conflict,  # ROW_IS_REFERENCED
    1451: errors.Conflict,  # ROW_IS_REFERENCED_2
    3730: errors.Conflict,  # FK_CANNOT_DROP_PARENT
    1290: errors.Precondition,  # OPTION_PREVENTS_STATEMENT, --read-only
    1836: errors.Precondition,  # READ_ONLY_MODE
    3989: errors.Precondition,  # SCHEMA_READ_ONLY
    1040: errors.EngineUnavailable,  # CON_COUNT_ERROR
    1041: errors.EngineUnavailable,  # OUT_OF_RESOURCES
    1203: errors.EngineUnavailable,  # TOO_MANY_USER_CONNECTIONS
    1226: errors.EngineUnavailable,  # USER_LIMIT_REACHED
    1820: errors.EngineUnavailable,  # MUST_CHANGE_PASSWORD
    3032: errors.EngineUnavailable,  # SERVER_OFFLINE_MODE
    3549: NotPersisted,  # VARIABLE_NOT_PERSISTED
    6400: errors.EngineUnavailable,  # SERVER_OFFLINE_MODE_REASON
    1053: errors.ConnectionLost,  # SERVER_SHUTDOWN
    1080: errors.ConnectionLost,  # FORCING_CLOSE
    1152: errors.ConnectionLost,  # ABORTING_CONNECTION
    1158: errors.ConnectionLost,  # NET_READ_ERROR
    1159: errors.ConnectionLost,  # NET_READ_INTERRUPTED
    1160: errors.ConnectionLost,  # NET_ERROR_ON_WRITE
    1161: errors.ConnectionLost,  # NET_WRITE_INTERRUPTED
    1317: errors.ConnectionLost,  # QUERY_INTERRUPTED, somebody's KILL QUERY
    1927: errors.ConnectionLost,  # CONNECTION_KILLED, MariaDB
    3168: errors.ConnectionLost,  # SERVER_ISNT_AVAILABLE
    3169: errors.ConnectionLost,  # SESSION_WAS_KILLED
    4031: errors.ConnectionLost,  # CLIENT_INTERACTION_TIMEOUT
    2006: errors.ConnectionLost,  # CR_SERVER_GONE_ERROR
    2013: errors.ConnectionLost,  # CR_SERVER_LOST
    2014: errors.ConnectionLost,  # CR_COMMANDS_OUT_OF_SYNC
    2055: errors.ConnectionLost,  # CR_SERVER_LOST_EXTENDED
}
"""Causes by error number; what is not here is a refusal that the engine explains itself, see `driver.cause_of`."""

REMEDIES = {
    1010: " A file that the server does not know is left in the directory of that logical database: remove it by hand."
}
"""What is to be done, where the server does not say it."""
