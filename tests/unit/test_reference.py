"""docs/reference.md is what scripts/reference would write, and what it writes is whole."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from agent.api.audit import AuditLine
from agent.api.errors import STATUS
from agent.api.openapi_actions import action_schemas
from agent.settings import DatabaseSettings, LimitSettings, Settings, TokenSettings
from agent.settings_tls import TlsSettings
from engines.engine import installed_engines
from tests.fakes.service import running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference.md").read_text()


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_reference", ROOT / "scripts" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as changed:
        changed.syspath_prepend(str(ROOT / "scripts"))
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


def section(heading: str) -> str:
    return PAGE[PAGE.index(f"\n## {heading}\n") :].removeprefix("\n## ").partition("\n## ")[0]


def rows(text: str, head: str) -> set[str]:
    """Give the names in the first column of the table with this head."""
    table = text[text.index(f"| {head} |") :].partition("\n\n")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE))


def test_every_field_that_the_route_of_actions_takes_and_gives_has_its_row() -> None:
    actions = [(engine, action) for engine in installed_engines().values() for action in engine.actions.values()]
    schemas = action_schemas(actions)
    of_requests, of_responses = (
        {field for name, schema in schemas.items() if name.endswith(kind) for field in schema["properties"]}
        for kind in (".request", ".response")
    )
    text = section("Performing an action")
    assert rows(text, "field of the body") == of_requests
    assert rows(text, "field of the answer") == of_responses


async def test_every_route_with_pages_and_the_audit_are_told_of() -> None:
    async with running() as valet:
        paths = (await valet.ask("GET", "/openapi.json", None)).json()["paths"]
    queries = {
        path: {each["name"] for each in operations["get"].get("parameters", ()) if each["in"] == "query"}
        for path, operations in paths.items()
        if "get" in operations
    }
    paged = {path for path, query in queries.items() if "page" in query}
    assert len(paged) > 2
    assert rows(section("Long lists"), "route") == {f"GET {each.replace('{database_id}', ':id')}" for each in paged}
    text = section("The audit")
    assert rows(text, "query") == queries["/api/audit"]
    assert rows(text, "field of a line") == set(AuditLine.model_fields)
    for media_type in paths["/api/audit"]["get"]["responses"]["200"]["content"]:
        assert media_type == "application/json" or f"Accept: {media_type}" in text
