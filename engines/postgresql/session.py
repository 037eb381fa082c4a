"""How a session of dbvalet is opened, in the words of libpq."""

from __future__ import annotations

from engines.address import Address

APPLICATION_NAME = "dbvalet"
"""Together with the account it tells dbvalet's own sessions from those of others."""

DUMPING, RESTORING = "dbvalet backup", "dbvalet restore"
"""What sessions that last long are called instead, by which those of a dbvalet that is gone are found again."""

CONNECT_TIMEOUT = 3
"""Seconds to wait for a session, be it a new one or one that others are using."""

STATEMENT_TIMEOUT = 10.0
"""Seconds: the default of each session and the most that one statement gets. It is the deadline of a read, so that the
usual read need not set its own."""

SETTINGS = " ".join(
    (
        # Only pg_catalog is looked into, so nothing in `public` can shadow a function or an operator.
        "-c search_path=pg_catalog",
        f"-c statement_timeout={STATEMENT_TIMEOUT:g}s",
        "-c TimeZone=UTC",
        "-c DateStyle=ISO",
        # Compiling costs more than running anything that dbvalet asks.
        "-c jit=off",
    )
)
"""Given at connect, they outrank what is set for the role and for the database."""

WITHOUT_LIMITS = " ".join(
    (
        "-c statement_timeout=0",
        "-c lock_timeout=0",
        "-c idle_in_transaction_session_timeout=0",
        # Else every text with a backslash is written in a dump in another way.
        "-c standard_conforming_strings=on",
    )
)
"""The same for sessions that take as long as they take."""


def parameters(address: Address) -> dict[str, str | int | None]:
    """Give libpq's parameters for a database; what its URL says after `?` is libpq's to judge.

    Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
    """
    return {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password,
        "dbname": address.database,
        "connect_timeout": CONNECT_TIMEOUT,
        "gssencmode": "disable",
        # A peer that vanished without a word is noticed within seconds, also between statements.
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15000,
        **address.options,
        "application_name": APPLICATION_NAME,
        "client_encoding": "UTF8",
        # The last one counts.
        "options": f"{address.options.get('options', '')} {SETTINGS}".strip(),
    }
