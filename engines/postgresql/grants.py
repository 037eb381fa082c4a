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

-- Log in. Choose the password here.
ALTER ROLE @account@ WITH LOGIN PASSWORD @password@;
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
        "password": quote_literal(wanted.password or "put-a-password-here"),
    }
    parts = SCRIPT.split("@")
    return "".join(texts[part] if position % 2 else part for position, part in enumerate(parts))
