"""The script that makes an account sufficient for every action, run once by a superuser."""

from __future__ import annotations

from engines.engine import GrantsFor
from engines.postgresql.quoting import quote_identifier, quote_literal

SCRIPT = """\
-- dbvalet on PostgreSQL: an account that may do what the actions need, and no more.
-- Run it once as a superuser, in the deployment's own database; running it again does no harm:
--     psql -X -1 -v ON_ERROR_STOP=1 -d DATABASE -f THIS-FILE

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET search_path = pg_catalog;
-- Else the password below would stand in the statistics, for all to read who may read them.
SET pg_stat_statements.track = 'none';
SELECT pg_catalog.set_config('dbvalet.account', @account_text@, false) AS account;
SELECT pg_catalog.set_config('dbvalet.database', @database_text@, false) AS database;

DO $check$
BEGIN
    IF pg_catalog.current_database() <> pg_catalog.current_setting('dbvalet.database') THEN
        RAISE EXCEPTION 'this script is for the database %, and this is %',
            pg_catalog.current_setting('dbvalet.database'), pg_catalog.current_database();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles
                    WHERE rolname = pg_catalog.current_setting('dbvalet.account')) THEN
        EXECUTE pg_catalog.format('CREATE ROLE %I', pg_catalog.current_setting('dbvalet.account'));
    END IF;
END
$check$;

-- Log in. Without --password-file of `dbvalet grants` no password stands here: that of a role that is there stays, and
-- a new one has none, so that it cannot log in with a password before it is given one.
ALTER ROLE @account@ WITH LOGIN@password@;
GRANT CONNECT, CREATE ON DATABASE @database@ TO @account@;

-- See what the sessions of other roles are running: pg-list-queries, pg-stat-statements-list.
GRANT pg_read_all_stats TO @account@;

-- Signal the sessions of roles that are no superusers: pg-cancel-query, pg-terminate-query.
GRANT pg_signal_backend TO @account@;

-- Only a superuser can create pg_stat_statements (it is not a trusted extension), and its reset function can be granted
-- only once it is there. Without the library in shared_preload_libraries it would collect nothing and is left out: set
-- that, restart the server and run this script again.
DO $statistics$
DECLARE
    place text;
BEGIN
    IF pg_catalog.current_setting('pg_stat_statements.max', true) IS NULL THEN
        RAISE WARNING 'pg_stat_statements is not in shared_preload_libraries: left out';
        RETURN;
    END IF;
    CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public;
    SELECT extnamespace::pg_catalog.regnamespace INTO place
      FROM pg_catalog.pg_extension WHERE extname = 'pg_stat_statements';
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I',
                              place, pg_catalog.current_setting('dbvalet.account'));
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s.pg_stat_statements TO %I',
                              place, pg_catalog.current_setting('dbvalet.account'));
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s.pg_stat_statements_reset TO %I',
                              place, pg_catalog.current_setting('dbvalet.account'));
END
$statistics$;

RESET pg_stat_statements.track;

-- Optional, so not part of the account as it stands: backups, restores, recovery, users, logs. Write 'yes' for what
-- you want, and run this script again whenever another role has come to own something.
-- A backup reads every row of every table:
SELECT pg_catalog.set_config('dbvalet.backups', 'no', false) AS backups;
-- A restore replaces every object, so the account becomes a member of each role that owns one, and may do whatever that
-- role may. What a superuser owns takes a superuser's account in the database's url. An account that has users or logs
-- too restores no backup in which constraints, generated columns or the like call functions that no superuser owns, as
-- they would run as the account: where there are such functions, use one account for restores and one for the rest.
SELECT pg_catalog.set_config('dbvalet.restores', 'no', false) AS restores;
-- To go back to an instant (pitr in dbvalet's configuration), the log must be switched to its next segment:
SELECT pg_catalog.set_config('dbvalet.recovery', 'no', false) AS recovery;
-- To create users, give them passwords and delete them. Before PostgreSQL 16 such an account may do that to every role
-- that is no superuser. What PUBLIC may write today (temporary tables, large objects, before 15 tables in the schema
-- public) is given to each role that is there now instead, so that a read-only user really cannot write:
SELECT pg_catalog.set_config('dbvalet.users', 'no', false) AS users;
-- To show the end of the log that the logging collector writes. The function for it reads every file of the data
-- directory, password hashes included; log_file in dbvalet's configuration takes no privilege:
SELECT pg_catalog.set_config('dbvalet.logs', 'no', false) AS logs;

DO $backups$
DECLARE
    account CONSTANT text := pg_catalog.current_setting('dbvalet.account');
    name text;
    place text;
BEGIN
    IF pg_catalog.current_setting('dbvalet.backups') = 'yes' THEN
        IF pg_catalog.current_setting('server_version_num')::int >= 140000 THEN
            EXECUTE pg_catalog.format('GRANT pg_read_all_data TO %I', account);
        ELSE
            -- Of tables that are made later it must be said again.
            FOR name IN SELECT nspname FROM pg_catalog.pg_namespace
                         WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
                EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', name, account);
                EXECUTE pg_catalog.format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', name, account);
                EXECUTE pg_catalog.format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO %I', name, account);
            END LOOP;
        END IF;
        IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE relrowsecurity) THEN
            EXECUTE pg_catalog.format('ALTER ROLE %I BYPASSRLS', account);
        END IF;
    END IF;
    IF pg_catalog.current_setting('dbvalet.recovery') = 'yes' THEN
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO %I', account);
    END IF;
    IF pg_catalog.current_setting('dbvalet.logs') = 'yes' THEN
        EXECUTE pg_catalog.format(
            'GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_logfile(text), pg_catalog.pg_ls_logdir(), '
            'pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO %I', account);
    END IF;
    IF pg_catalog.current_setting('dbvalet.users') = 'yes' THEN
        IF pg_catalog.current_setting('server_version_num')::int < 140000 THEN
            RAISE EXCEPTION 'users need PostgreSQL 14 or later';
        END IF;
        EXECUTE pg_catalog.format('ALTER ROLE %I CREATEROLE', account);
        EXECUTE pg_catalog.format('GRANT pg_read_all_data, pg_write_all_data TO %I WITH ADMIN OPTION', account);
        FOR name IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' AND rolname <> account LOOP
            EXECUTE pg_catalog.format('GRANT TEMPORARY ON DATABASE %I TO %I',
                                      pg_catalog.current_database(), name);
            EXECUTE pg_catalog.format(
                'GRANT EXECUTE ON FUNCTION pg_catalog.lo_creat(int), pg_catalog.lo_create(oid), '
                'pg_catalog.lo_from_bytea(oid, bytea) TO %I', name);
        END LOOP;
        EXECUTE pg_catalog.format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO %I WITH GRANT OPTION',
                                  pg_catalog.current_database(), account);
        EXECUTE pg_catalog.format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', pg_catalog.current_database());
        EXECUTE pg_catalog.format(
            'GRANT EXECUTE ON FUNCTION pg_catalog.lo_creat(int), pg_catalog.lo_create(oid), '
            'pg_catalog.lo_from_bytea(oid, bytea) TO %I WITH GRANT OPTION', account);
        REVOKE EXECUTE ON FUNCTION pg_catalog.lo_creat(int), pg_catalog.lo_create(oid),
            pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC;
        FOR place IN SELECT nspname FROM pg_catalog.pg_namespace
                      WHERE nspname !~ '^pg_' AND pg_catalog.has_schema_privilege('public', oid, 'CREATE') LOOP
            FOR name IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' LOOP
                EXECUTE pg_catalog.format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', place, name);
            END LOOP;
            EXECUTE pg_catalog.format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', place);
        END LOOP;
        IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public') THEN
            EXECUTE pg_catalog.format('GRANT USAGE, CREATE ON SCHEMA public TO %I WITH GRANT OPTION', account);
        END IF;
    END IF;
    IF pg_catalog.current_setting('dbvalet.restores') = 'yes' THEN
        FOR name IN SELECT DISTINCT role.rolname
                      FROM pg_catalog.pg_shdepend AS dependency
                      JOIN pg_catalog.pg_roles AS role ON role.oid = dependency.refobjid
                     WHERE dependency.dbid = (SELECT oid FROM pg_catalog.pg_database
                                               WHERE datname = pg_catalog.current_database())
                       AND dependency.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
                       AND dependency.deptype = 'o' AND NOT role.rolsuper AND role.rolname <> account LOOP
            EXECUTE pg_catalog.format('GRANT %I TO %I', name, account);
        END LOOP;
    END IF;
END
$backups$;

RESET search_path;
"""


def grants(wanted: GrantsFor) -> str:
    """Write the script for an account and a database; plain SQL, so psql and every other client can run it.

    Raises: ValueError for names that PostgreSQL cannot have
    """
    texts = {
        "account": quote_identifier(wanted.user),
        "account_text": quote_literal(wanted.user),
        "database": quote_identifier(wanted.database),
        "database_text": quote_literal(wanted.database),
        "password": f" PASSWORD {quote_literal(wanted.password)}" if wanted.password else "",
    }
    parts = SCRIPT.split("@")
    return "".join(texts[part] if position % 2 else part for position, part in enumerate(parts))
