"""The state opened with SQLAlchemy: connecting and migrating. Importing this costs 150 ms and 28 MB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    QueuePool,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DisconnectionError

from agent.errors import SettingsError
from agent.state.file import APPLICATION_ID, SCHEMA_VERSION, StateFile
from agent.state.wal import CACHE_KIB

_MIGRATIONS = Path(__file__).with_name("migrations")

_ONE_AT_A_TIME = 0x6462766C
"""The advisory lock under which a PostgreSQL state is migrated: several dbvalets may start at once."""


_DEAD_LINK = {"keepalives_idle": 4, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A host or a network that is gone is noticed within 10 s."""


def open_file(file: StateFile) -> Engine:
    """Open a state file; each transaction is one of a writer from its first moment, so none fails half-way.

    One is durable when it is committed, unless its option `durable` is false.
    """
    # Transactions take turns anyhow, and who waits in a queue has its turn sooner than who tries again and again.
    kept: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 10}
    engine = create_engine(
        f"sqlite:///{file.path}", creator=file.connect, **(kept if file.stays else {"poolclass": NullPool})
    )
    if file.stays:
        _keep(engine, file)
    event.listen(engine, "begin", _begin_at_once)
    return engine


def _keep(engine: Engine, file: StateFile) -> None:
    """Let a connection be used for many transactions, as long as the file it was opened to is the one that is there."""

    def connected(connection: Any, record: Any) -> None:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        record.info["file"] = file.settle()

    def checked_out(_connection: Any, record: Any, _proxy: object) -> None:
        if file.settle() != record.info["file"]:
            raise DisconnectionError("another file has taken its place")

    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", checked_out)


def open_server(url: str) -> Engine:
    """Open a state that several dbvalets share; connects when first used, and waits for nothing for long."""
    engine = _engine_of(url, pool_size=2, max_overflow=0, pool_pre_ping=True)
    event.listen(engine, "do_connect", _connect)
    return engine


def migrate_server(url: str) -> None:
    """Bring the tables of a shared state up to `SCHEMA_VERSION`, however long it or another dbvalet takes for that.

    Raises: SettingsError, when they are those of a newer dbvalet; they are left untouched
    """
    migrate(_engine_of(url, poolclass=NullPool))


def _engine_of(url: str, **pool: Any) -> Engine:
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": 5, "application_name": "dbvalet-state", **_DEAD_LINK},
        **pool,
    )


def migrate(engine: Engine) -> None:
    """Bring the tables up to `SCHEMA_VERSION`, in one transaction.

    Raises: SettingsError, when they are those of a newer dbvalet; they are left untouched
    """
    with engine.begin() as connection:
        on_server = engine.dialect.name == "postgresql"
        if on_server:
            connection.execute(select(func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise SettingsError(
                "state", f"it was written by a newer dbvalet (schema {version}, known {SCHEMA_VERSION})"
            )
        if version < SCHEMA_VERSION:
            _upgrade(connection, version)
            if not on_server:
                connection.execute(text(f"PRAGMA application_id = {APPLICATION_ID}"))
                connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))


def _version(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        return int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if not inspect(connection).has_table("alembic_version"):
        return 0
    found: list[str] = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    if len(found) == 1 and found[0].isdecimal():
        return int(found[0])
    raise SettingsError(
        "state",
        f"its database holds the tables of another application (alembic_version: {', '.join(found) or 'empty'});"
        " give dbvalet one of its own",
    )


def _upgrade(connection: Connection, version: int) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", re.sub("%", "%%", str(_MIGRATIONS)))
    if version and not inspect(connection).has_table("alembic_version"):
        command.stamp(config, f"{version:04}")
    command.upgrade(config, "head")


def _connect(_dialect: object, _record: object, arguments: list[Any], more: dict[str, Any]) -> Any:
    from agent.state.connection import connect

    return connect(*arguments, **more)


def _begin_at_once(connection: Connection) -> None:
    durable = connection.get_execution_options().get("durable", True)
    # It cannot be changed within a transaction. With a rollback journal less than EXTRA could bring an old value back.
    if not durable and connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() != "wal":
        durable = True
    connection.exec_driver_sql("PRAGMA synchronous = EXTRA" if durable else "PRAGMA synchronous = NORMAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
