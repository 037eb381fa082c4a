"""Views, routines, triggers and events in a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import BackupDamaged
from engines.mysql.program import ProgramObject, encodable, for_trial, in_order, read, write


def view(name: str, statement: str = "") -> ProgramObject:
    return ProgramObject(kind="VIEW", name=name, statement=statement or f"CREATE VIEW `{name}` AS SELECT 1")


TEXT = st.text(st.characters(exclude_categories=("Cs",)))

OBJECTS = st.lists(
    st.builds(
        ProgramObject,
        kind=st.sampled_from(["VIEW", "TRIGGER", "EVENT"]),
        name=TEXT,
        statement=TEXT,
        sql_mode=st.sampled_from(["", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"]),
        client=st.sampled_from(["utf8mb4", "utf8mb3", "latin1", "koi8r", "sjis", "unheard_of"]),
        collation=st.sampled_from([None, "utf8mb4_bin"]),
        broken=st.booleans(),
    ).map(encodable),
    max_size=5,
)


def test_a_character_that_comes_back_as_another_is_written_as_unicode() -> None:
    each = encodable(ProgramObject(kind="VIEW", name="v", statement="SELECT '\N{YEN SIGN}'", client="sjis"))
    assert each.client == "utf8mb4"


@given(OBJECTS)
def test_what_was_written_is_read(objects: list[ProgramObject]) -> None:
    assert read(write(objects, "a`b\nc", "utf8mb4_general_ci")) == objects


@given(OBJECTS.filter(bool), st.data())
def test_what_is_cut_off_anywhere_is_damaged(objects: list[ProgramObject], data: st.DataObject) -> None:
    written = write(objects, "app", "utf8mb4_general_ci")
    cut = data.draw(st.integers(0, len(written) - 2))
    with pytest.raises(BackupDamaged):
        read(written[:cut])


def test_what_is_cut_off_within_a_delimiter_is_damaged() -> None:
    written = write([ProgramObject(kind="VIEW", name="v", statement="")], "app", "utf8mb4_general_ci")
    end = written.partition(b"\nDELIMITER ")[2].partition(b"\n")[0]
    cut = written.index(end, written.index(end) + 1) + len(end)
    with pytest.raises(BackupDamaged):
        read(written[:cut])


def test_a_statement_is_written_in_the_character_set_of_its_session() -> None:
    each = ProgramObject(kind="PROCEDURE", name="p", statement="SELECT 'é€'", client="latin1")
    assert b"SELECT '\xe9\x80'" in write([each], "app", "utf8mb4_bin")


def test_a_statement_that_its_character_set_has_not_is_written_as_unicode() -> None:
    each = encodable(ProgramObject(kind="PROCEDURE", name="p", statement="SELECT '\N{SNOWMAN}'", client="latin1"))
    assert each.client == "utf8mb4"


def test_each_view_comes_after_those_that_it_names() -> None:
    views = [
        view("a", "CREATE VIEW `a` AS SELECT * FROM `m` JOIN `other`.`z`"),
        view("m", "CREATE VIEW `m` AS SELECT `z`.`x` FROM `z`"),
        view("z"),
    ]
    assert [each.name for each in in_order(views)] == ["z", "m", "a"]


def test_views_that_seem_to_name_each_other_stay_as_they_are() -> None:
    views = [view("a", "SELECT `b`"), view("b", "SELECT `a`"), view("c")]
    assert {each.name for each in in_order(views)} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("head", "tried"),
    [
        ("TRIGGER `app`.`tr` BEFORE INSERT ON `app`.`t`", "TRIGGER `tr` BEFORE INSERT ON `t`"),
        ("TRIGGER app.tr after  update\nON app . t", "TRIGGER tr after  update\nON t"),
        ('TRIGGER "a.b"."tr" BEFORE DELETE ON "a""b"."t"', 'TRIGGER "tr" BEFORE DELETE ON "t"'),
        ("TRIGGER IF NOT EXISTS app.tr BEFORE INSERT ON t", "TRIGGER IF NOT EXISTS tr BEFORE INSERT ON t"),
        ("TRIGGER tr BEFORE INSERT ON t", "TRIGGER tr BEFORE INSERT ON t"),
    ],
)
def test_a_trigger_is_tried_without_the_names_of_databases(head: str, tried: str) -> None:
    body = " FOR EACH ROW INSERT INTO app.log VALUES (1)"
    each = ProgramObject(kind="TRIGGER", name="tr", statement=f"CREATE DEFINER=`a`@`b` {head}{body}")
    assert [one.statement for one in for_trial([each])] == [f"CREATE DEFINER=`a`@`b` {tried}{body}"]


def test_a_trigger_whose_head_is_not_understood_is_not_tried() -> None:
    statement = "CREATE DEFINER=`a`@`b` TRIGGER /* x */ app.tr BEFORE INSERT ON t FOR EACH ROW SET @a = 1"
    assert for_trial([ProgramObject(kind="TRIGGER", name="tr", statement=statement)]) == []


@pytest.mark.parametrize("preserve", ["ON COMPLETION PRESERVE", "ON COMPLETION NOT PRESERVE"])
def test_an_event_that_is_tried_does_not_start(preserve: str) -> None:
    each = ProgramObject(
        kind="EVENT", name="e", statement=f"CREATE EVENT `e` ON SCHEDULE EVERY 1 SECOND {preserve} ENABLE DO SELECT 1"
    )
    [tried] = for_trial([each])
    assert f"{preserve} DISABLE DO" in tried.statement
