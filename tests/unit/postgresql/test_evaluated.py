"""What a restore would let the server call, as the statements of a dump tell it."""

import pytest

from engines.postgresql.archive import Entry
from engines.postgresql.evaluated import Code

CODE = Code(
    entries=[
        Entry(1, 1255, 16400, "FUNCTION public theirs(integer) app"),
        Entry(2, 1255, 16401, "FUNCTION public ours(integer) postgres"),
        Entry(3, 1255, 16402, "FUNCTION public both(integer) postgres"),
        Entry(4, 1255, 16403, "FUNCTION public both(text) app"),
        Entry(5, 1255, 16404, 'FUNCTION Odd "s" f n" x(integer) app'),
        Entry(6, 2617, 16405, "OPERATOR public |+| app"),
        Entry(7, 2617, 16406, "OPERATOR public |-| postgres"),
        Entry(8, 1255, 16407, "FUNCTION public near(integer) not postgres"),
    ],
    trusted=["postgres"],
    acts={("pg_catalog", "query_to_xml"), ("public", "dblink_exec")},
)


@pytest.mark.parametrize(
    ("statement", "called"),
    [
        (
            "CREATE TABLE public.t (\n    n integer,\n    CHECK ((public.theirs(n) > 0))\n);",
            ["public.theirs"],
        ),
        ("CREATE TABLE public.t (n integer GENERATED ALWAYS AS (public.theirs(n)) STORED);", ["public.theirs"]),
        ("CREATE TABLE public.t (n integer)\nPARTITION BY RANGE (public.theirs(n));", ["public.theirs"]),
        ("ALTER TABLE public.t ADD CONSTRAINT c CHECK ((public.both(n) > 0)) NOT VALID;", ["public.both"]),
        ("ALTER TABLE public.t ADD CONSTRAINT c EXCLUDE USING gist (public.theirs(n) WITH =);", ["public.theirs"]),
        (
            "ALTER TABLE t ADD CONSTRAINT c EXCLUDE USING gist (n WITH =) WHERE (public.near(n));",
            ["public.near"],
        ),
        ("CREATE DOMAIN public.d AS text CONSTRAINT c CHECK ((VALUE OPERATOR(public.|+|) 1));", ["public.|+|"]),
        ("CREATE UNIQUE INDEX i ON public.t USING btree (public.theirs(n));", ["public.theirs"]),
        ("CREATE STATISTICS public.s ON public.theirs(n), m FROM public.t;", ["public.theirs"]),
        ("CREATE CAST (public.e AS integer) WITH FUNCTION public.theirs(public.e);", ["public.theirs"]),
        ('CREATE TABLE t (n integer CHECK (("Odd ""s"""."f\nn"" x"(n) > 0)));', ['Odd "s".f\nn" x']),
        (
            "CREATE TABLE t (n xml CHECK (query_to_xml('SELECT', true, true, '') > ''));",
            ["pg_catalog.query_to_xml"],
        ),
        ("CREATE TABLE t (n text CHECK (public.dblink_exec('', n) > ''));", ["public.dblink_exec"]),
        ("""CREATE TABLE t (a text CHECK (a <> ')('), b integer CHECK (public.theirs(b) > 0));""", ["public.theirs"]),
        ("CREATE TABLE t (a integer DEFAULT public.theirs(1), b integer CHECK ((b > 0)));", []),
        ("CREATE TABLE t (a integer CHECK ((public.ours(a) > 0)), b integer CHECK ((b OPERATOR(public.|-|) 1)));", []),
        ("CREATE TABLE t (a text CHECK ((a <> 'public.theirs('::text)), \"CHECK (public.theirs(\" integer);", []),
        ("ALTER TABLE public.t ADD CONSTRAINT f FOREIGN KEY (n) REFERENCES public.theirs(n);", []),
        ("CREATE VIEW public.v AS\n SELECT public.theirs(n) AS n FROM public.t WHERE (public.theirs(n) > 0);", []),
        ("CREATE INDEX i ON public.t USING gin (w public.gin_trgm_ops (siglen='32'));", []),
    ],
)
def test_what_is_evaluated_and_not_a_superusers_is_named(statement: str, called: list[str]) -> None:
    assert CODE.of_others_in(statement) == called
