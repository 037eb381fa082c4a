"""Users of a PostgreSQL database: roles that can log in.

Roles are of the whole server. One that has to do with another database of it (it owns something there, or was granted
something) is of another deployment: listed as protected, never touched. So is a member of such a role.
"""

from __future__ import annotations

import asyncio
import time

from engines import deadline
from engines.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    Precondition,
    PrivilegeMissing,
    UserNotFound,
)
from engines.health import Lack
from engines.postgresql.quoting import quote_identifier, quote_literal
from engines.postgresql.server import ChangedMeanwhile, PostgresServer, UndefinedObject
from engines.postgresql.user_rights import SINCE, VERSION, lacking, remedy
from engines.users import User

LIST = """
WITH RECURSIVE here AS (SELECT oid, datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
     others AS (SELECT DISTINCT dependency.refobjid AS role
                  FROM pg_catalog.pg_shdepend AS dependency, here
                 WHERE dependency.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
                   AND (dependency.dbid NOT IN (0, here.oid)
                        OR dependency.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
                           AND dependency.objid <> here.oid)),
     powerful AS (SELECT role.oid AS role
                    FROM pg_catalog.pg_roles AS role, here
                   WHERE role.rolsuper OR role.rolcreaterole OR role.rolcreatedb OR role.rolreplication
                         OR role.rolbypassrls
                         OR role.rolname ~ '^pg_' AND role.rolname NOT IN ('pg_read_all_data', 'pg_write_all_data')
                         OR role.rolname IN (CURRENT_USER, SESSION_USER) OR role.oid = here.datdba
                         OR role.oid IN (SELECT others.role FROM others)
                   UNION
                  SELECT membership.member
                    FROM powerful JOIN pg_catalog.pg_auth_members AS membership ON membership.roleid = powerful.role)
SELECT role.rolname AS name,
       role.oid IN (SELECT powerful.role FROM powerful) AS protected,
       NOT role.rolsuper
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS membership
                         JOIN pg_catalog.pg_roles AS granted ON granted.oid = membership.roleid
                        WHERE membership.member = role.oid AND granted.rolname <> 'pg_read_all_data')
       AND NOT pg_catalog.has_database_privilege(role.oid, here.oid, 'CREATE, TEMPORARY')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS made
                        WHERE made.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
                          AND made.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')
                          AND pg_catalog.has_function_privilege(role.oid, made.oid, 'EXECUTE'))
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS schema
                        WHERE schema.nspname !~ '^pg_'
                          AND pg_catalog.has_schema_privilege(role.oid, schema.oid, 'CREATE'))
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS class
                         JOIN pg_catalog.pg_namespace AS schema ON schema.oid = class.relnamespace
                        WHERE schema.nspname !~ '^pg_' AND schema.nspname <> 'information_schema'
                          AND CASE WHEN class.relkind IN ('r', 'p', 'v', 'f')
                                   THEN pg_catalog.has_table_privilege(role.oid, class.oid, 'DELETE, TRUNCATE, TRIGGER')
                                     OR pg_catalog.has_any_column_privilege(role.oid, class.oid, 'INSERT, UPDATE')
                                   WHEN class.relkind = 'S'
                                   THEN pg_catalog.has_sequence_privilege(role.oid, class.oid, 'USAGE, UPDATE')
                                   WHEN class.relkind = 'm' THEN class.relowner = role.oid
                                   ELSE false END) AS read_only
  FROM pg_catalog.pg_roles AS role, here
 WHERE role.rolcanlogin
 ORDER BY role.rolname COLLATE "C"
"""
"""Protected is who has more than a user of this database, and who is a member of such a role, through however many
others: SET ROLE makes the one the other. Not asked of pg_has_role, which takes a superuser for a member of everything.

Read-only is who may change nothing in this database, by what is granted to it, to PUBLIC and by membership.
"""

OPEN_TO_ALL = """
SELECT pg_catalog.format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', nspname) AS remedy
  FROM pg_catalog.pg_namespace
 WHERE nspname !~ '^pg_' AND pg_catalog.has_schema_privilege('public', oid, 'CREATE')
UNION ALL
SELECT pg_catalog.format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', datname)
  FROM pg_catalog.pg_database
 WHERE datname = pg_catalog.current_database()
   AND pg_catalog.has_database_privilege('public', oid, 'CREATE, TEMPORARY')
UNION ALL
SELECT pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::pg_catalog.regprocedure)
  FROM pg_catalog.pg_proc
 WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')
   AND pg_catalog.has_function_privilege('public', oid, 'EXECUTE')
UNION ALL
(SELECT pg_catalog.format('REVOKE ALL ON %s%s FROM PUBLIC',
                          CASE class.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END, class.oid::pg_catalog.regclass)
   FROM pg_catalog.pg_class AS class
   JOIN pg_catalog.pg_namespace AS schema ON schema.oid = class.relnamespace
  WHERE schema.nspname !~ '^pg_' AND schema.nspname <> 'information_schema'
    AND CASE WHEN class.relkind IN ('r', 'p', 'v', 'f')
             THEN pg_catalog.has_table_privilege('public', class.oid, 'DELETE, TRUNCATE, TRIGGER')
               OR pg_catalog.has_any_column_privilege('public', class.oid, 'INSERT, UPDATE')
             WHEN class.relkind = 'S'
             THEN pg_catalog.has_sequence_privilege('public', class.oid, 'USAGE, UPDATE')
             ELSE false END
  LIMIT 5)
"""
"""What would let anybody write, each with what takes it away."""

OWNED = """
SELECT CASE dependency.dbid WHEN 0 THEN pg_catalog.pg_describe_object(dependency.classid, dependency.objid, 0)
       ELSE pg_catalog.pg_describe_object(dependency.classid, dependency.objid, dependency.objsubid) END AS what
  FROM pg_catalog.pg_shdepend AS dependency
  JOIN pg_catalog.pg_roles AS role ON role.oid = dependency.refobjid
 WHERE dependency.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
   AND dependency.deptype = 'o' AND role.rolname = %(name)s
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS class
                    WHERE dependency.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND class.oid = dependency.objid AND class.relpersistence = 't')
 ORDER BY dependency.classid, dependency.objid
 LIMIT 5
"""
"""Temporary tables end with their sessions."""

CONNECTION_LIMIT = """
SELECT rolconnlimit AS connections FROM pg_catalog.pg_roles WHERE rolname = %(name)s
"""

# Not NOLOGIN: a role that is not to log in is no user, and one whose deletion was interrupted must stay listed.
LIMIT_CONNECTIONS = "BEGIN ALTER ROLE {user} CONNECTION LIMIT {connections}; END"

SESSIONS = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE usename = %(name)s"

END_SESSIONS = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = %(name)s"

CREATE = """
BEGIN
    CREATE ROLE {user} LOGIN PASSWORD {verifier};
    GRANT CONNECT ON DATABASE {database} TO {user};
    GRANT pg_read_all_data TO {user};
    {more}
    IF NOT pg_catalog.has_database_privilege({user_text}, pg_catalog.current_database(), 'CONNECT') THEN
        RAISE insufficient_privilege USING MESSAGE = 'CONNECT cannot be granted';
    END IF;
END
"""

MAY_WRITE = """
    GRANT pg_write_all_data TO {user};
    GRANT CREATE, TEMPORARY ON DATABASE {database} TO {user};
    GRANT EXECUTE ON FUNCTION pg_catalog.lo_creat(int), pg_catalog.lo_create(oid),
        pg_catalog.lo_from_bytea(oid, bytea) TO {user};
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public') THEN
        GRANT USAGE, CREATE ON SCHEMA public TO {user};
    END IF;
"""

# A belt: the user can take it off. It is the missing privileges that hold.
READS_ONLY = "ALTER ROLE {user} SET default_transaction_read_only = on;"

DROP = """
BEGIN
    IF NOT pg_catalog.pg_has_role({user_text}, 'USAGE') THEN
        GRANT {user} TO CURRENT_USER;
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_shdepend AS dependency
                WHERE dependency.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
                  AND dependency.deptype = 'o'
                  AND dependency.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {user_text})) THEN
        RAISE object_in_use USING MESSAGE = 'it owns something by now';
    END IF;
    DROP OWNED BY {user};
    DROP ROLE {user};
END
"""

SESSIONS_END_WITHIN = 5.0

LIMITED = (
    "It cannot log in (CONNECTION LIMIT 0), perhaps by a deletion that was interrupted: delete it again, or lift that."
)

TO_PUT_BACK = 2.0
"""Seconds that a deletion leaves for letting the user log in again when it does not come about."""

AGAIN_WITHIN = 0.5
"""Seconds that must be left for a statement that met another change to be tried again."""


class PostgresUsers:
    """Users of one PostgreSQL database."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    async def all(self) -> list[User]:
        """List the roles that can log in.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        return [
            User(name=row["name"], read_only=row["read_only"], protected=row["protected"])
            for row in await self._server.read(LIST)
        ]

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        """Make a role that reads all of the database, and writes it unless it is to be read-only.

        Raises: Precondition, PrivilegeMissing, AlreadyExists, EngineUnavailable
        """
        [version] = await self._server.read(VERSION)
        if version["number"] < SINCE:
            raise Precondition("Users are created on PostgreSQL 14 and later, which has the role pg_read_all_data.")
        if read_only:
            remedies = [row["remedy"] for row in await self._server.read(OPEN_TO_ALL)]
            if remedies:
                raise Precondition(
                    "A read-only user could write what everybody may. The script that `dbvalet grants postgresql` "
                    f"prints, with dbvalet.users at yes, puts that right; or: {'; '.join(remedies)}."
                )
        await self._do(
            CREATE.replace("{more}", READS_ONLY if read_only else MAY_WRITE),
            name,
            verifier=quote_literal(await self._server.verifier(name, password)),
        )

    async def set_password(self, name: str, password: str) -> None:
        """Let the server keep another verifier.

        Raises: PrivilegeMissing, EngineUnavailable
        """
        verifier = await self._server.verifier(name, password)
        await self._do("BEGIN ALTER ROLE {user} PASSWORD {verifier}; END", name, verifier=quote_literal(verifier))

    async def delete(self, name: str) -> None:
        """Lock a role out, end its sessions, and drop it with what was granted to it.

        Raises: UserNotFound; Conflict, when it owns something; PrivilegeMissing, EngineUnavailable
        """
        rows = await self._server.read(CONNECTION_LIMIT, {"name": name})
        if not rows:
            raise UserNotFound
        connections = int(rows[0]["connections"])
        owned = [str(row["what"]) for row in await self._server.read(OWNED, {"name": name})]
        if owned:
            raise Conflict(
                f"The user owns {', '.join(owned)}: whose that is to be is not dbvalet's to say. As it or as a "
                f"superuser: REASSIGN OWNED BY {quote_identifier(name)} TO another; then delete it."
                + (f" {LIMITED}" if connections == 0 else "")
            )
        try:
            with deadline.within(deadline.remaining() - TO_PUT_BACK):
                await self._do(LIMIT_CONNECTIONS, name, connections="0")
                await self._end_sessions(name)
                await self._do(DROP, name)
        except BaseException as problem:
            if await self._put_back(name, connections, problem):
                raise

    async def lacking(self) -> list[Lack]:
        """Look what the account lacks to manage users.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        return await lacking(self._server)

    async def _put_back(self, name: str, connections: int, problem: BaseException) -> bool:
        """Let a user log in again after whatever it was; tell whether it is there.

        An application must not be locked out by a deletion that did not come about.
        """
        unable = connections == 0
        try:
            await self._do(LIMIT_CONNECTIONS, name, connections=str(connections))
        except UserNotFound:
            # It is gone: the answer that said so was lost. Any other problem is not one of this deletion's end.
            return not isinstance(problem, ConnectionLost | DeadlineExceeded)
        except EngineError as also:
            unable = True
            problem.add_note(f"ALTER ROLE … CONNECTION LIMIT {connections} failed: {also.message}")
        if unable and isinstance(problem, EngineError):
            problem.message = f"{problem.message} {LIMITED}"
        return True

    async def _end_sessions(self, name: str) -> None:
        ends_at = time.monotonic() + min(SESSIONS_END_WITHIN, deadline.remaining() / 2)
        try:
            await self._server.write(END_SESSIONS, {"name": name})
        except PrivilegeMissing as refused:
            raise self._missing(name) from refused
        while await self._server.read(SESSIONS, {"name": name}):
            if time.monotonic() > ends_at:
                raise DeadlineExceeded("Sessions of the user do not end; it is still there.")
            await asyncio.sleep(0.05)

    async def _do(self, body: str, name: str, **more: str) -> None:
        """Run several statements as one: all of it is done, or nothing."""
        texts = {
            "user": quote_identifier(name),
            "user_text": quote_literal(name),
            "database": quote_identifier(self._server.address.database),
            **more,
        }
        parts = _parts(body)
        block = "".join(texts[part] if position % 2 else part for position, part in enumerate(parts))
        while True:
            try:
                # With params, if none, so that it is not kept as one of the statements that are asked again and again.
                await self._server.write(f"DO {quote_literal(block)}".replace("%", "%%"), {})
                return
            except ChangedMeanwhile:
                # GRANT … ON DATABASE rewrites the database's one row of pg_database, whoever it is for. No lock of
                # dbvalet's own is taken against it: administrators would not know of it, and who is to be deleted
                # could hold it.
                if deadline.remaining() < AGAIN_WITHIN:
                    raise
                await asyncio.sleep(0.02)
            except UndefinedObject as gone:
                raise UserNotFound from gone
            except PrivilegeMissing as refused:
                raise self._missing(name) from refused

    def _missing(self, name: str) -> PrivilegeMissing:
        account = quote_identifier(self._server.address.user or "valet")
        return PrivilegeMissing(
            f"The engine account may not manage this user. {remedy(self._server)} For a role that dbvalet has not "
            f"made, since PostgreSQL 16: GRANT {quote_identifier(name)} TO {account} WITH ADMIN OPTION;",
            privilege="CREATEROLE",
        )


def _parts(body: str) -> list[str]:
    """Split a body into text and the names in braces, in turns."""
    return body.replace("}", "{").split("{")
