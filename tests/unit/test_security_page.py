"""docs/security.md goes through all ten risks, and every test that it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
RISKS = PAGE[PAGE.index("\n## The ten risks of OWASP\n") :]
ROWS = [line for line in RISKS.splitlines() if re.match(r"\|(?! threat |---)", line)]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", PAGE)))


def test_each_of_the_ten_risks_of_2023_has_its_section_with_rows() -> None:
    parts = re.split(r"^### (API\d+:2023) ", PAGE, flags=re.MULTILINE)
    assert parts[1::2] == [f"API{number}:2023" for number in range(1, 11)]
    for text in parts[2::2]:
        assert re.search(r"^\| (?!threat|---).+ \|$", text.partition("\n## ")[0], flags=re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:60])
def test_every_row_names_its_test(row: str) -> None:
    cells = re.split(r" \| ", row.strip("| "))
    assert len(cells) == 3
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", cells[2])


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text()
    assert re.search(rf"^(async )?def {name or 'test_'}", text, flags=re.MULTILINE), f"{file} has no {name}"
    if name:
        assert re.search(rf"^(async )?def {name}\(", text, flags=re.MULTILINE), f"{file} has no {name}"


def test_no_test_is_named_without_its_file() -> None:
    assert set(re.findall(r"\btest_\w+(?!\.py)\b", re.sub(r"`tests/[^`]+`", "", PAGE))) == set()
