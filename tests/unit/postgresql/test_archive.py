"""SQL as pg_restore writes it, however it is cut into blocks."""

from collections.abc import AsyncIterator

import pytest

from engines.postgresql.archive import CutShort, Entry, Script

HEAD = rb"""--
-- PostgreSQL database dump
--

\restrict Token

-- Dumped from database version 18.6

SET statement_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);

"""

DATA = rb"""--
-- Data for Name: a;b'"; Type: TABLE DATA; Schema: public; Owner: me
--

COPY public."a;b'""
COPY x FROM stdin;
" (a, "--") FROM stdin;
1	it's; a "row"
\\.	\\N;
\.


COPY public.empty FROM stdin;
\.


SELECT pg_catalog.setval('public."it''s; a -- name"', 5, true);


BEGIN;

SELECT pg_catalog.lo_open('70001', 131072);
SELECT pg_catalog.lowrite(0, '\x3b27');
SELECT pg_catalog.lo_close(0);

COMMIT;

CREATE INDEX i ON public.t USING btree ((((a)::text || E';\'\\' || '--;') || "e;"), (a - -1));

"""

TAIL = rb"""--
-- PostgreSQL database dump complete
--

\unrestrict Token
"""

STATEMENTS = [
    b'COPY public."a;b\'""\nCOPY x FROM stdin;\n" (a, "--") FROM stdin;',
    b"COPY public.empty FROM stdin;",
    b"SELECT pg_catalog.setval('public.\"it''s; a -- name\"', 5, true);",
    b"BEGIN;",
    b"SELECT pg_catalog.lo_open('70001', 131072);",
    rb"SELECT pg_catalog.lowrite(0, '\x3b27');",
    b"SELECT pg_catalog.lo_close(0);",
    b"COMMIT;",
    rb"""CREATE INDEX i ON public.t USING btree ((((a)::text || E';\'\\' || '--;') || "e;"), (a - -1));""",
]

ROWS = [b'1\tit\'s; a "row"\n\\\\.\t\\\\N;\n', b""]


async def cut(text: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def read(text: bytes, size: int) -> tuple[list[bytes], list[bytes]]:
    """Take a script apart as a restore does."""
    script = Script(cut(text, size))
    assert await script.encoding() == "UTF8"
    await script.skip_settings()
    statements: list[bytes] = []
    rows: list[bytes] = []
    while (statement := await script.statement()) is not None:
        statements.append(statement)
        if statement.startswith(b"COPY "):
            rows.append(b"".join([block async for block in script.rows()]))
    return statements, rows


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 100_000])
async def test_a_script_is_taken_apart_wherever_its_blocks_end(size: int) -> None:
    assert await read(HEAD + DATA + TAIL, size) == (STATEMENTS, ROWS)


async def test_a_script_that_ends_anywhere_is_never_taken_for_more_than_it_is() -> None:
    """Cut off within a statement or within rows it is an error; else what was read is the beginning of the whole."""
    whole = HEAD + DATA
    errors = 0
    for end in range(len(HEAD) + 20, len(whole) - 2):
        try:
            statements, rows = await read(whole[:end], 50)
        except CutShort:
            errors += 1
        else:
            assert statements == STATEMENTS[: len(statements)]
            assert rows == ROWS[: len(rows)]
    assert errors > len(DATA) * 0.7


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_whole_script_is_without_its_head_and_what_is_for_psql(size: int) -> None:
    name = b"--\n-- Name: f(); Type: FUNCTION; Schema: a; Owner: me\n--\n\n"
    body = name + b"CREATE FUNCTION f() AS $$\n\\unrestrict me\n$$;\n\n\n"
    assert await Script(cut(HEAD + body + TAIL, size)).whole() == body + TAIL.replace(b"\\unrestrict Token\n", b"")


async def test_no_entries_are_no_sql() -> None:
    assert await Script(cut(HEAD + TAIL, 10)).whole() == b""
    assert await read(HEAD + TAIL, 10) == ([], [])


async def test_output_without_a_head_is_cut_short() -> None:
    with pytest.raises(CutShort):
        await Script(cut(b"", 1)).encoding()


def test_entries_know_what_they_are() -> None:
    assert Entry(1, 0, 16384, "TABLE DATA public a me").is_data
    assert not Entry(1, 1259, 16384, "TABLE DATA public me").is_data, "a table named public in a schema named DATA"
    assert Entry(1, 0, 0, "ACL public TABLE a me").is_right
    assert Entry(1, 826, 5, "DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES me").is_right
    assert not Entry(1, 1255, 5, "FUNCTION public f() me").is_plain
    assert not Entry(1, 2618, 5, "RULE public t r me").is_plain
    assert Entry(1, 3079, 5, "EXTENSION - hstore ").name == "hstore"
