"""The command line as a whole, and its small commands: actions, grants, demo."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent import cli
from agent.commands.root import app
from agent.errors import SettingsError
from agent.roles import needed_for
from engines.engine import installed_engines
from tests.live.images import IMAGES, EngineImage
from tests.unit.running import run

COMMANDS = ("serve", "call", "actions", "doctor", "healthcheck", "grants", "demo")


def invoke(*words: str, columns: int = 100) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": str(columns)})


def test_help_names_every_command_in_one_line_each_and_the_exit_codes() -> None:
    lines = invoke("--help").output.splitlines()
    for command in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {command} ")]
        assert not line.endswith("...")
    assert [line.strip()[0] for line in lines[lines.index("  Exit codes:") + 1 :]] == ["0", "1", "2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples_that_name_it(command: str) -> None:
    for option in ("--help", "-h"):
        lines = invoke(command, option, columns=80).output.splitlines()
        examples = lines[lines.index("  Examples:") + 1 :]
        assert f"dbvalet {command}" in examples[0]
        assert max(len(line) for line in lines) <= 100


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert invoke("--version").output == f"dbvalet {version('dbvalet')}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["sing"],
        ["serve", "--confg", "x"],
        ["actions", "--engine", "oracle"],
        ["grants"],
        ["grants", "oracle"],
        ["grants", "mysql", "--server-version", "new"],
        ["grants", "mysql", "--flavour", "percona"],
        ["grants", "postgresql", "--user", ""],
        ["grants", "mysql", "--database", "a\nb"],
        ["grants", "postgresql", "--user", "x" * 64],
        ["call"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2_without_a_traceback(words: list[str]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_errors_of_the_console_script_are_one_line_with_their_exit_code(tmp_path: Path) -> None:
    wrong = run("call", "ad-pg", "pg-list-queries")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "dbvalet: --token-file: is needed, or DBVALET_TOKEN_FILE, or DBVALET_TOKEN\n"
    nobody = run(
        "call", "ad-pg", "pg-list-queries", more={"DBVALET_TOKEN": "t" * 20, "DBVALET_URL": "http://127.0.0.1:1"}
    )
    assert (nobody.returncode, nobody.stdout, nobody.stderr.count("\n")) == (1, "", 1)
    assert nobody.stderr.startswith("dbvalet: no dbvalet answers at http://127.0.0.1:1")


def test_a_terminal_that_is_not_utf_8_gets_utf_8_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("schl\u00fcssel")
    options = ["--password-file", str(tmp_path / "password")]
    ended = run("grants", "postgresql", *options, more={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "'schl\u00fcssel'" in ended.stdout
    table = run("actions", more={"PYTHONIOENCODING": "ascii"})
    assert (table.returncode, table.stderr) == (0, "")


def test_the_usual_starts_go_to_the_service_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path | None] = []
    monkeypatch.setattr("agent.serve.serve", started.append)
    for words in (["serve"], ["serve", "--config", "a.yaml"], ["serve", "-c", "b.yaml"]):
        monkeypatch.setattr(sys, "argv", ["dbvalet", *words])
        cli.main()
    assert started == [None, Path("a.yaml"), Path("b.yaml")]


def test_a_mistake_in_the_configuration_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path | None) -> None:
        raise SettingsError("tokens", "none is declared")

    monkeypatch.setattr("agent.serve.serve", refuse)
    monkeypatch.setattr(sys, "argv", ["dbvalet", "serve"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "dbvalet: tokens: none is declared\n"


def test_help_does_not_import_what_commands_need() -> None:
    code = (
        "import sys; sys.argv = ['dbvalet', '--help']\n"
        "from agent.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in sys.modules if m in ('fastapi', 'pydantic', 'httpx', 'rich', 'uvicorn')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines()[-1] == "[]"


# actions


def test_actions_are_those_of_every_installed_engine() -> None:
    listed: list[dict[str, Any]] = json.loads(invoke("actions", "--json").output)
    engines = installed_engines()
    assert {(each["engine"], each["name"]) for each in listed} == {
        (engine.name, name) for engine in engines.values() for name in engine.actions
    }
    for each in listed:
        action = engines[each["engine"]].actions[each["name"]]
        assert each["role"] == needed_for(action.effect)
        assert each["params_schema"] == json.loads(json.dumps(action.params.json_schema()))
        assert each["deadline_seconds"] == action.deadline


def test_actions_for_people_are_a_line_each_in_a_pipe() -> None:
    lines = run("actions").stdout.splitlines()
    assert lines[0].split() == ["engine", "action", "effect", "role", "params", "summary"]
    (cancel,) = [line for line in lines if " pg-cancel-query " in line]
    assert re.split(r"  +", cancel)[:5] == ["postgresql", "pg-cancel-query", "write", "operator", "pid [backend_start]"]
    (mode,) = [line for line in lines if " set-sqlmode " in line]
    assert re.split(r"  +", mode)[4] == "STRING"


def test_actions_of_one_engine() -> None:
    listed: list[dict[str, Any]] = json.loads(invoke("actions", "--engine", "influxdb", "--json").output)
    assert {each["engine"] for each in listed} == {"influxdb"}


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_the_table_of_actions_fits_the_terminal(columns: int) -> None:
    lines = invoke("actions", columns=columns).output.splitlines()
    assert max(len(line) for line in lines) <= columns


# grants


@pytest.mark.parametrize("engine", ["postgresql", "mysql", "mariadb", "mongodb", "influxdb", "PostgreSQL"])
def test_grants_names_account_and_database(engine: str) -> None:
    result = invoke("grants", engine, "--user", "steward", "--database", "shop")
    assert result.exit_code == 0
    assert "steward" in result.output
    assert result.output.endswith("\n")
    assert not result.output.endswith("\n\n")


def test_grants_for_mariadb_are_others_than_for_mysql() -> None:
    mariadb = invoke("grants", "mariadb", "--server-version", "10.11").output
    assert mariadb == invoke("grants", "mysql", "--flavour", "mariadb", "--server-version", "10.11.18-MariaDB").output
    assert mariadb != invoke("grants", "mysql").output
    assert "GRANT SUPER" in mariadb


@pytest.mark.parametrize("engine", ["postgresql", "mysql", "mariadb", "mongodb", "influxdb"])
def test_the_password_comes_in_a_file_or_the_script_sets_none(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "password"
    file.write_text("qu'ote\n")
    given = invoke("grants", engine, "--password-file", str(file))
    assert re.search(r"qu(''|\\'|')ote", given.stdout)
    assert given.stderr == ""
    without = invoke("grants", engine)
    assert "sets no password" in without.stderr
    statements = re.sub(r"^ *(--|//).*", "", without.stdout, flags=re.MULTILINE)
    assert re.search(r"PASSWORD|IDENTIFIED|pwd: *['\"]", statements) is None
    assert invoke("grants", engine, "--password", "secret").exit_code == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("postgresql --server-version 9.6", "postgresql 9.6 is none that dbvalet is made for (12 and later)"),
        ("mysql --server-version 3.23", "mysql 3.23 is none that dbvalet is made for (5.7 and later)"),
        ("mysql --flavour mariadb --server-version 5.5.68-MariaDB", "mariadb 5.5.68-MariaDB is none that dbvalet is"),
        ("mariadb --server-version 10.4", "mariadb 10.4 is none that dbvalet is made for (10.5 and later)"),
        ("mongodb --server-version 3.6", "mongodb 3.6 is none that dbvalet is made for (4.2 and later)"),
        ("influxdb --server-version 2.7", "influxdb 2.7 is none that dbvalet is made for (before 2)"),
    ],
)
def test_a_script_for_a_version_that_dbvalet_is_not_made_for_says_so(words: str, text: str) -> None:
    result = invoke("grants", *words.split())
    assert result.exit_code == 0
    assert text in result.stderr
    assert result.stdout


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.id)
def test_every_version_that_is_tested_is_one_that_dbvalet_is_made_for(image: EngineImage) -> None:
    script = invoke("grants", image.flavour, "--server-version", image.version)
    assert "made for" not in script.stderr
    assert "made for" not in invoke("grants", image.flavour).stderr


@pytest.mark.parametrize("engine", ["mysql", "mariadb", "mongodb"])
def test_a_script_says_what_running_it_again_does_to_the_password(tmp_path: Path, engine: str) -> None:
    (tmp_path / "password").write_text("secret")
    given = invoke("grants", engine, "--password-file", str(tmp_path / "password")).stdout
    without = invoke("grants", engine).stdout
    assert "brings an existing account up to date and sets its password." in " ".join(given.split())
    assert "brings an existing account up to date." in " ".join(without.split())


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"a\x00b", b"\xff"])
def test_a_file_without_a_password_is_a_mistake(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    result = run("grants", "mysql", "--password-file", str(tmp_path / "password"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr


# demo


@pytest.mark.parametrize(("words", "once"), [(["demo"], False), (["demo", "--once"], True)])
def test_demo_hands_over_to_the_tour(monkeypatch: pytest.MonkeyPatch, words: list[str], once: bool) -> None:
    import types

    called: list[dict[str, bool]] = []
    tour = types.ModuleType("agent.demo.tour")
    vars(tour)["main"] = lambda **given: called.append(given)
    monkeypatch.setitem(sys.modules, "agent.demo.tour", tour)
    assert invoke(*words).exit_code == 0
    assert called == [{"once": once}]
