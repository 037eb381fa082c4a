"""Which entries of a dump are restored, and in which order."""

from types import SimpleNamespace
from typing import Any

import pytest

from engines.postgresql.archive import Entry
from engines.postgresql.contents import EXTENSIONS
from engines.postgresql.plan import Plan, _leave_extensions

TEXTS = (
    (2615, 'SCHEMA - the "shop" me'),
    (0, 'ACL - SCHEMA "the ""shop""" me'),
    (1255, "FUNCTION shop f() me"),
    (0, "ACL shop FUNCTION f() me"),
    (1259, "TABLE shop t me"),
    (0, "COMMENT shop TABLE t me"),
    (0, "TABLE DATA shop t me"),
    (2613, "BLOB METADATA - 70001 me"),
    (0, "ACL - LARGE OBJECT 70001 me"),
    (0, "BLOBS - 70001 me"),
    (2606, "CONSTRAINT shop t t_pkey me"),
    (1259, "MATERIALIZED VIEW shop m me"),
    (1259, "INDEX shop i me"),
    (2618, "RULE shop t r me"),
    (2620, "TRIGGER shop t tr me"),
    (826, "DEFAULT ACL shop DEFAULT PRIVILEGES FOR TABLES me"),
    (3466, "EVENT TRIGGER - watch me"),
    (0, "COMMENT - EVENT TRIGGER watch me"),
    (0, "MATERIALIZED VIEW DATA shop m me"),
)


def entries() -> list[Entry]:
    return [Entry(number, catalog, 0, text) for number, (catalog, text) in enumerate(TEXTS)]


def test_rights_come_after_rows_but_for_those_on_schemas() -> None:
    stages = [
        (stage.words, stage.is_plain, [entry.number for entry in stage.entries])
        for stage in Plan(entries=entries()).stages()
    ]
    after = "making indexes, constraints, triggers and rules"
    assert stages == [
        ("making schemas", False, [0, 1]),
        ("making tables, functions and other objects", False, [2, 4, 5]),
        ("loading rows", True, [6, 7, 9]),
        (after, True, [10, 11, 12]),
        (after, False, [13]),
        (after, True, [14]),
        ("granting rights", True, [3, 8, 15]),
        ("filling materialized views", True, [18]),
        ("making event triggers", False, [16, 17]),
    ]


def test_every_entry_is_restored_once() -> None:
    numbers = [entry.number for stage in Plan(entries=entries()).stages() for entry in stage.entries]
    assert sorted(numbers) == list(range(len(TEXTS)))


def test_a_dump_without_rows_has_its_objects_all_the_same() -> None:
    plan = Plan(entries=[entry for entry in entries() if not entry.is_data])
    numbers = [entry.number for stage in plan.stages() for entry in stage.entries]
    assert sorted(numbers) == [entry.number for entry in plan.entries]


def test_rights_on_a_schema_wait_until_it_is_there() -> None:
    of_an_extension = Entry(0, 0, 0, "ACL - SCHEMA topology me")
    of_what_stays = Entry(1, 0, 0, "ACL - SCHEMA public me")
    plan = Plan(entries=[of_an_extension, of_what_stays], fresh_schemas=["public"])
    stages = {stage.words: list(stage.entries) for stage in plan.stages()}
    assert stages["making schemas"] == [of_what_stays]
    assert stages["granting rights"] == [of_an_extension]


@pytest.mark.parametrize(
    ("live", "noted"),
    [
        (("1.2", "public"), None),
        (("1.3", "public"), "is version 1.3 in the schema public; in the backup it was 1.2 in public."),
        (("1.2", "other"), "is version 1.2 in the schema other; in the backup it was 1.2 in public."),
    ],
)
async def test_an_extension_that_stays_and_is_not_as_in_the_backup_is_noted(
    live: tuple[str, str], noted: str | None
) -> None:
    async def read(statement: str) -> list[dict[str, Any]]:
        assert statement == EXTENSIONS
        version, schema = live
        return [{"name": "hstore", "version": version, "schema": schema, "quoted": "hstore"}]

    server: Any = SimpleNamespace(read=read)
    backup: Any = SimpleNamespace(contents=SimpleNamespace(extensions={"hstore": ["1.2", "public"]}))
    table = Entry(1, 1259, 16400, "TABLE public t me")
    of_it = [Entry(2, 3079, 16401, "EXTENSION - hstore "), Entry(3, 0, 0, "COMMENT - EXTENSION hstore ")]
    plan = Plan(entries=[table, *of_it])
    await _leave_extensions(server, backup, plan, superuser=True)
    assert plan.notes == [
        *([f"The extension hstore {noted}"] if noted else []),
        "Left as they are: the extensions hstore.",
    ]
    assert (plan.entries, plan.extensions) == ([table], ["hstore"])
