"""docs/reference.md is what scripts/reference would write, and what it writes is whole."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from agent.api.errors import STATUS
from agent.settings import DatabaseSettings, LimitSettings, Settings, TokenSettings
from agent.settings_tls import TlsSettings
from engines.engine import installed_engines

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference.md").read_text()


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_reference", ROOT / "scripts" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_script_writes(writer: ModuleType) -> None:
    assert writer.main(["--check"]) == 0, "docs/reference.md lags: run scripts/reference"


def test_a_page_that_lags_is_told_and_written_anew(
    writer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "reference.md"
    monkeypatch.setattr(writer, "PLACE", page)
    assert writer.main(["--check"]) == 1
    page.write_text(PAGE.replace("409", "410", 1))
    capsys.readouterr()
    assert writer.main(["--check"]) == 1
    said = capsys.readouterr()
    assert "+| 409" in said.out
    assert said.err == "docs/reference.md lags: run scripts/reference\n"
    assert "410" in page.read_text(), "--check only looks"
    assert writer.main([]) == 0
    assert page.read_text() == PAGE
    assert writer.main(["--check"]) == 0


def test_the_script_can_be_run_from_anywhere(tmp_path: Path) -> None:
    ended = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", ROOT / "scripts" / "write_reference.py", "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_every_link_within_the_page_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    places = headings | set(re.findall(r'<a id="([^"]+)"', PAGE))
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links
    assert links <= places


def test_every_table_has_as_many_cells_in_each_row() -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", PAGE, flags=re.MULTILINE)
    assert len(tables) > 20
    for table in tables:
        cells = {len(re.split(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table


@pytest.mark.parametrize("code", STATUS)
def test_every_code_has_its_row_with_a_meaning(code: str) -> None:
    (row,) = re.findall(
        rf"^\| {STATUS[code]} \| `{code}` \| (.+) \|$", PAGE[PAGE.index("## Errors") :], flags=re.MULTILINE
    )
    assert row


@pytest.mark.parametrize("model", [Settings, TlsSettings, TokenSettings, DatabaseSettings, LimitSettings])
def test_every_key_of_the_configuration_has_its_row_with_a_description(model: type[Settings]) -> None:
    section = PAGE[PAGE.index("## Configuration") :]
    for key in model.model_fields:
        assert re.search(rf"^\| `{key}` \| [^|]+ \|.*\| [^|]*[a-z][^|]* \|$", section, flags=re.MULTILINE), key
    for key in Settings.model_fields:
        assert f"| `DBVALET_{key.upper()}` |" in section


def test_every_requirement_of_an_action_is_named() -> None:
    for engine in installed_engines().values():
        for name in engine.requirements:
            assert f"`{name}`" in PAGE
