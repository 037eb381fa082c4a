"""What a backup brings back: every kind of object, every row, and nothing that came after it."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.postgresql.backing_up import At, BackedUp, every_kind_of_object, ignore
from tests.live.servers import LiveServer

DESTROY = """
DROP SCHEMA "Odd ""schema"".;--" CASCADE;
DROP TABLE books.author, books.sale, books.dropped_column, public.in_public CASCADE;
DROP TYPE books.mood, books.floats, books.pair CASCADE;
DROP FUNCTION books.add_up CASCADE;
DROP PUBLICATION news;
UPDATE books.book SET price = 0, cover = NULL;
TRUNCATE books.secret;
DELETE FROM books.cache;
ALTER TABLE books.base ADD COLUMN later text, ALTER COLUMN b SET DEFAULT 'other';
ALTER TABLE books.log RENAME TO history;
ALTER TABLE books.secret DISABLE ROW LEVEL SECURITY;
ALTER SEQUENCE books.counter RESTART 5 INCREMENT 1;
ALTER DOMAIN books.positive DROP NOT NULL;
GRANT CREATE ON SCHEMA books TO @reader@;
ALTER DEFAULT PRIVILEGES FOR ROLE @user@ IN SCHEMA books REVOKE SELECT ON TABLES FROM @reader@;
ALTER DEFAULT PRIVILEGES FOR ROLE @user@ GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
SELECT lo_unlink(70001);
SELECT lo_put(70002, 3, 'overwritten');
"""

BY_A_SUPERUSER = """
DROP EVENT TRIGGER watch_ddl;
DROP SERVER elsewhere CASCADE;
ALTER TABLE books.derived OWNER TO @reader@;
COMMENT ON SCHEMA public IS NULL;
GRANT CREATE ON SCHEMA public, books TO @reader@;
REVOKE USAGE ON SCHEMA public FROM PUBLIC, @reader@;
"""

MADE_AFTERWARDS = """
SET ROLE @user@;
CREATE SCHEMA later;
CREATE TYPE later.kind AS ENUM ('a');
CREATE DOMAIN public.later_domain AS text;
CREATE TABLE later.one (a later.kind, b books.mood, id serial PRIMARY KEY);
INSERT INTO later.one VALUES ('a', 'sad');
CREATE TABLE public.two (a integer REFERENCES later.one (id), b books.pair);
CREATE TABLE books.child () INHERITS (books.base);
CREATE TABLE books.sale_elsewhere PARTITION OF books.sale_new FOR VALUES IN ('elsewhere');
CREATE VIEW books.later_view AS SELECT name, a FROM books.author, later.one;
CREATE MATERIALIZED VIEW books.later_filled AS SELECT count(*) FROM books.book;
CREATE FUNCTION public.later_function() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE PROCEDURE books.later_procedure(books.mood) LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE public.later_aggregate(text) (SFUNC = textcat, STYPE = text);
CREATE OPERATOR books.<-> (LEFTARG = text, RIGHTARG = text, FUNCTION = textcat);
CREATE TRIGGER later AFTER INSERT ON books.book EXECUTE FUNCTION public.later_function();
CREATE RULE later AS ON INSERT TO books.log DO ALSO NOTHING;
CREATE POLICY later ON books.secret USING (true);
CREATE INDEX later ON books.book (author);
CREATE STATISTICS books.later ON isbn, author FROM books.book;
CREATE SEQUENCE public.later_sequence;
CREATE COLLATION books.later FROM "C";
CREATE TEXT SEARCH CONFIGURATION books.later (COPY = simple);
CREATE TEXT SEARCH DICTIONARY books.later_dictionary (TEMPLATE = simple);
CREATE PUBLICATION later FOR TABLE books.author;
COMMENT ON TABLE books.book IS 'later';
GRANT ALL ON books.book, books.base, books.log TO @reader@;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO @reader@;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TYPES TO PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
SELECT lo_from_bytea(70003, 'later');
RESET ROLE;
"""

BY_A_SUPERUSER_AFTERWARDS = """
CREATE EVENT TRIGGER later ON ddl_command_start EXECUTE FUNCTION public.on_ddl();
CREATE FOREIGN DATA WRAPPER later_wrapper;
CREATE SERVER later_server FOREIGN DATA WRAPPER later_wrapper;
CREATE USER MAPPING FOR PUBLIC SERVER later_server;
CREATE FOREIGN TABLE public.later_foreign (a integer) SERVER later_server;
CREATE ACCESS METHOD later_method TYPE TABLE HANDLER heap_tableam_handler;
CREATE CAST (text AS books.shell) WITH INOUT;
CREATE CAST (money AS path) WITH INOUT;
CREATE CONVERSION books.later FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
CREATE OPERATOR CLASS public.later FOR TYPE text USING btree AS OPERATOR 1 <, FUNCTION 1 bttextcmp(text, text);
CREATE TEXT SEARCH TEMPLATE public.later (LEXIZE = dsimple_lexize);
CREATE FUNCTION public.in_the_system(text) RETURNS text LANGUAGE internal IMMUTABLE AS 'textin';
ALTER TABLE public.of_the_superuser OWNER TO @reader@;
"""


@pytest.fixture
async def of_a_superuser(postgresql: LiveServer) -> AsyncIterator[BackedUp]:
    async with every_kind_of_object(postgresql, superuser=True) as backed_up:
        yield backed_up


@pytest.fixture
async def of_the_account(postgresql: LiveServer) -> AsyncIterator[BackedUp]:
    async with every_kind_of_object(postgresql, superuser=False) as backed_up:
        yield backed_up


async def test_a_superuser_brings_back_every_kind_of_object_and_every_row(
    of_a_superuser: BackedUp, tmp_path: Path
) -> None:
    before = await of_a_superuser.content()
    manifest = await of_a_superuser.backups.dump(tmp_path, ignore)
    assert manifest == await of_a_superuser.backups.verify(tmp_path)
    await of_a_superuser.run(DESTROY + BY_A_SUPERUSER)
    assert await of_a_superuser.content() != before
    await of_a_superuser.backups.restore(tmp_path, ignore)
    assert await of_a_superuser.content() == before


async def test_an_ordinary_account_brings_back_what_roles_own_that_it_is_a_member_of(
    of_the_account: BackedUp, tmp_path: Path
) -> None:
    before = await of_the_account.content()
    await of_the_account.backups.dump(tmp_path, ignore)
    await of_the_account.run(DESTROY)
    notes = await of_the_account.backups.restore(tmp_path, ignore)
    assert await of_the_account.content() == before
    assert any("statistics" in note for note in notes)


async def test_an_ordinary_account_brings_back_roles_in_the_schemas_of_others_and_what_they_granted(
    of_the_account: BackedUp, tmp_path: Path
) -> None:
    await of_the_account.run(
        "GRANT @reader@ TO @account@; GRANT CREATE ON SCHEMA books TO @reader@;"
        "SET ROLE @reader@; CREATE TABLE books.of_the_reader (a integer); GRANT SELECT ON books.author TO PUBLIC;"
        "RESET ROLE"
    )
    before = await of_the_account.content()
    await of_the_account.backups.dump(tmp_path, ignore)
    await of_the_account.run("DROP TABLE books.of_the_reader; REVOKE ALL ON books.author FROM @reader@ CASCADE")
    await of_the_account.backups.restore(tmp_path, ignore)
    assert await of_the_account.content() == before


async def test_what_was_made_after_a_backup_is_gone_after_its_restore(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    before = await of_a_superuser.content()
    await of_a_superuser.backups.dump(tmp_path, ignore)
    await of_a_superuser.run(MADE_AFTERWARDS + BY_A_SUPERUSER_AFTERWARDS)
    await of_a_superuser.backups.restore(tmp_path, ignore)
    assert await of_a_superuser.content() == before


async def test_an_ordinary_account_takes_away_what_was_made_after_a_backup(
    of_the_account: BackedUp, tmp_path: Path
) -> None:
    before = await of_the_account.content()
    await of_the_account.backups.dump(tmp_path, ignore)
    await of_the_account.run(MADE_AFTERWARDS)
    await of_the_account.backups.restore(tmp_path, ignore)
    assert await of_the_account.content() == before


async def test_an_empty_database_is_a_backup_too(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    await of_a_superuser.run("DROP OWNED BY @user@ CASCADE; DROP OWNED BY @reader@ CASCADE;")
    empty = await of_a_superuser.content()
    await of_a_superuser.backups.dump(tmp_path, ignore)
    await of_a_superuser.run("CREATE TABLE public.something (a integer)")
    await of_a_superuser.backups.restore(tmp_path, ignore)
    assert await of_a_superuser.content() == empty


async def test_schema_public_comes_and_goes_as_it_was(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    with_it, without_it = tmp_path / "with", tmp_path / "without"
    with_it.mkdir()
    without_it.mkdir()
    extensions = "DROP EXTENSION pg_stat_statements, btree_gist CASCADE"
    await of_a_superuser.run(f"{extensions}; ALTER SCHEMA public OWNER TO @user@")
    before = await of_a_superuser.content()
    await of_a_superuser.backups.dump(with_it, ignore)
    await of_a_superuser.run(
        "DROP EVENT TRIGGER watch_ddl; DROP EVENT TRIGGER watch_drops; DROP EVENT TRIGGER switched_off;"
        "DROP SCHEMA public CASCADE"
    )
    gone = await of_a_superuser.content()
    await of_a_superuser.backups.dump(without_it, ignore)
    await of_a_superuser.backups.restore(with_it, ignore)
    assert await of_a_superuser.content() == before
    await of_a_superuser.backups.restore(without_it, ignore)
    assert await of_a_superuser.content() == gone


async def test_progress_goes_up_and_says_what_is_being_done(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    dumping, restoring = At("", lambda: None), At("", lambda: None)
    await of_a_superuser.backups.dump(tmp_path, dumping)
    await of_a_superuser.backups.restore(tmp_path, restoring)
    for told in (dumping.told, restoring.told):
        percents = [percent for percent, _ in told]
        assert all(earlier <= later for earlier, later in itertools.pairwise(percents))
        assert percents[0] >= 0
        assert percents[-1] <= 100
    assert any("MB written, compressed; the database takes" in words for _, words in dumping.told)
    said = [words for words, _ in itertools.groupby(words for _, words in restoring.told if "rows loaded" not in words)]
    assert said == [
        "checking the backup",
        "waiting for those who use the tables",
        "dropping what is there",
        "making schemas",
        "making tables, functions and other objects",
        "loading rows",
        "making indexes, constraints, triggers and rules",
        "granting rights",
        "filling materialized views",
        "making event triggers",
        "committing",
    ]


async def test_a_restore_says_what_it_replaced_and_what_it_left(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    manifest = await of_a_superuser.backups.dump(tmp_path, ignore)
    assert manifest.database == of_a_superuser.deployment.database
    assert manifest.notes == []
    count = await of_a_superuser.deployment.value("SELECT count(*) FROM pg_event_trigger")
    notes = await of_a_superuser.backups.restore(tmp_path, ignore)
    replaced = int(notes[0].split()[0])
    assert replaced > count
    assert notes[0].endswith(f"objects were replaced by the backup of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC.")
    assert "pg_stat_statements" in next(note for note in notes if note.startswith("Left as they are: the extensions"))
