"""The demo's dbvalet: a process of its own, secrets in files that nobody else can read. And `scripts/demo`."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from agent.demo.accounts import Deployment
from agent.demo.processes import OWN_USER, RunFolder
from agent.demo.service import Service, start_service
from tests.leftovers import all_gone, command_of, descendants
from tests.unit.running import run

PASSWORD = "password-of-the-account"
NOBODY_THERE = Deployment(
    id="ad-pg",
    engine="postgresql",
    title="PostgreSQL",
    port=1,
    url=f"postgresql://valet:{PASSWORD}@127.0.0.1:1/app",
    password="password-of-the-application",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """The demo's folder, in a temporary one whose name means something to YAML and to dbvalet."""
    odd = tmp_path / "a: ${HOME} # folder"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    # What a shell may hold for another dbvalet wins over the file, and an unknown one ends the start.
    monkeypatch.setenv("DBVALET_TOKEN", "a-token-of-another-dbvalet")
    monkeypatch.setenv("DBVALET_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("dbvalet_what", "unknown")
    with RunFolder(OWN_USER) as run:  # nothing in it belongs to servers
        yield run


@pytest.fixture
def service(folder: RunFolder) -> Service:
    return start_service(folder, [NOBODY_THERE])


def get(service: Service, path: str, token: str) -> httpx.Response:
    return httpx.get(service.url + path, headers={"Authorization": f"Bearer {token}"}, trust_env=False)


def test_it_answers_to_its_token_alone(service: Service) -> None:
    answer = get(service, "/api/databases", service.token)
    assert [each["id"] for each in answer.json()["databases"]] == ["ad-pg"]
    assert get(service, "/api/databases", "a-token-of-another-dbvalet").status_code == 401
    assert service.token_file.read_text() == f"{service.token}\n"
    assert len(service.token) == 64


def test_each_has_another_token(folder: RunFolder, service: Service) -> None:
    with RunFolder(OWN_USER) as other:
        assert start_service(other, [NOBODY_THERE]).token != service.token


def test_secrets_are_in_files_that_nobody_else_can_read(folder: RunFolder, service: Service) -> None:
    place = folder.path / "dbvalet"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    secret = {file for file in place.iterdir() if PASSWORD in file.read_text() or service.token in file.read_text()}
    assert {file.name for file in secret} == {"ad-pg.url", "token"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
    config = yaml.safe_load((place / "dbvalet.yaml").read_text())
    assert config["listen"].startswith("127.0.0.1:")
    for pid in descendants(os.getpid()):
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        assert service.token not in command_of(pid) + environment
        assert PASSWORD not in command_of(pid) + environment


def test_programs_for_backups_come_first_on_its_path(folder: RunFolder, tmp_path: Path) -> None:
    start_service(folder, [NOBODY_THERE], [tmp_path / "tools", tmp_path / "others"])
    pids = {pid for pid in descendants(os.getpid()) if "agent.cli" in command_of(pid)}
    assert pids
    for pid in pids:
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        assert f"PATH={tmp_path}/tools:{tmp_path}/others:{os.environ['PATH']}" in variables


def test_it_ends_with_the_folder(folder: RunFolder, service: Service) -> None:
    pids = descendants(os.getpid())
    assert any("agent.cli" in command_of(pid) for pid in pids)
    folder.close()
    assert all_gone({pid for pid in pids if "agent.cli" in command_of(pid)})
    assert service.program.exit_code() == 0
    assert not folder.path.exists()


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing can be installed."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(Path(__file__).parents[2] / "scripts" / "demo", tmp_path / "scripts")
    return tmp_path


def scripts_demo(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([checkout / "scripts/demo", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--once", "--help"]])
def test_the_scripts_help_installs_nothing_and_knows_every_option(bare_checkout: Path, arguments: list[str]) -> None:
    ended = scripts_demo(bare_checkout, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [each.name for each in bare_checkout.iterdir()] == ["scripts"]
    assert max(map(len, ended.stdout.splitlines())) <= 80
    options = {word for word in run("demo", "--help").stdout.split() if word.startswith("--")} - {"--help"}
    assert options == {"--once"}
    assert all(option in ended.stdout for option in options)


def test_the_script_refuses_what_it_does_not_know_before_it_installs(bare_checkout: Path) -> None:
    ended = scripts_demo(bare_checkout, "--twice")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no --twice" in ended.stderr
    assert [each.name for each in bare_checkout.iterdir()] == ["scripts"]
