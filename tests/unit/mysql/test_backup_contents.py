"""What is read out of a dump without a server."""

from pathlib import Path

import pytest

from engines.errors import BackupDamaged
from engines.mysql import contents
from engines.mysql.contents import CONTENTS, Contents, check_trailer, read_contents, scan, write_contents

DUMP = """\
/*M!999999\\- enable the sandbox mode */
-- MariaDB dump

--
-- Sequence structure for `numbers`
--

CREATE SEQUENCE `numbers`;

--
-- Table structure for table `odd ``name`
--

CREATE TABLE `odd ``name` (a INT);
INSERT INTO `odd ``name` VALUES
(1),
('\\n-- Table structure for table `forged`\\n;'),
(2);

--
-- Table structure for table `ü`
--

CREATE TABLE `ü` (a INT);
-- Dump completed on 2026-01-01  0:00:00
"""


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "tables.sql"
    path.write_text(DUMP, encoding="utf-8")
    return path


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1000])
def test_tables_are_found_wherever_the_blocks_end(dump: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(contents, "BLOCK", block)
    assert scan(dump)[0] == ["numbers", "odd `name", "ü"]


@pytest.mark.parametrize("block", [1, 100, 4000, 1_000_000])
def test_the_longest_statement_is_measured(dump: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(contents, "BLOCK", block)
    statement = "INSERT INTO t VALUES\n(1),\n('" + "x" * 5000 + "');\n"
    dump.write_text("SELECT 1;\n" + statement + DUMP, encoding="utf-8")
    assert abs(scan(dump)[1] - len(statement)) <= 2


def test_a_file_without_its_end_is_damaged(dump: Path) -> None:
    check_trailer(dump)
    dump.write_text(DUMP.rpartition("--")[0])
    with pytest.raises(BackupDamaged, match="no end"):
        check_trailer(dump)
    dump.write_text("")
    with pytest.raises(BackupDamaged, match="no end"):
        check_trailer(dump)


def test_a_trailer_in_the_middle_is_none(dump: Path) -> None:
    dump.write_text("-- Dump completed\nSELECT '-- Dump completed")
    with pytest.raises(BackupDamaged):
        check_trailer(dump)


FACTS = Contents(
    format=contents.FORMAT,
    character_set="utf8mb4",
    collation="utf8mb4_bin",
    tables=["a", "ü"],
    sequences=["a"],
    longest_statement=7,
    data_bytes=8,
)


def test_contents_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_contents(tmp_path, FACTS)
    assert read_contents(tmp_path) == FACTS


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 1, "more": 2}'])
def test_contents_that_are_none_are_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / CONTENTS).write_text(text)
    with pytest.raises(BackupDamaged):
        read_contents(tmp_path)


def test_contents_of_a_later_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / CONTENTS).write_text('{"format": 2}')
    with pytest.raises(BackupDamaged, match="of a format that this version"):
        read_contents(tmp_path)
