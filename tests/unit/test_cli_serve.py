"""`dbvalet serve` as a process: its first line, its ports, its end."""

import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from agent.errors import SettingsError
from agent.listen import bind, shown
from tests.unit.running import ACME, TOKEN, command, configuration, environment, run, serving

AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}


def wait_for(url: str, seconds: float) -> httpx.Response:
    body = {"action_name": "acme-wait", "params": {"seconds": seconds}}
    return httpx.post(f"{url}/api/databases/ad-acme/action", json=body, headers=AUTHORIZATION, timeout=30)


def until_under_way(url: str) -> None:
    ends_at = time.monotonic() + 10
    while (
        'dbvalet_pool_connections_in_use{database="ad-acme"} 1.0'
        not in httpx.get(f"{url}/metrics", headers=AUTHORIZATION).text
    ):
        assert time.monotonic() < ends_at, "the request was not taken up"


def test_the_line_that_says_listening_has_the_real_port(tmp_path: Path) -> None:
    with serving(configuration(tmp_path, ACME)) as running:
        line = running.lines[-1]
        assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*", line["address"])
        assert (line["level"], line["pid"]) == ("info", running.process.pid)
        assert httpx.get(f"{running.url}/livez").json() == {"status": "alive"}


def test_a_sidecar_of_one_database_needs_variables_only(tmp_path: Path) -> None:
    variables = {
        "DBVALET_DATABASE_URL": ACME["url"],
        "DBVALET_TOKEN": TOKEN,
        "DBVALET_LISTEN": "127.0.0.1:0",
        "DBVALET_STATE": f"sqlite:///{tmp_path}/state.db",
        # Of `dbvalet call`; the same shell may use both.
        "DBVALET_URL": "http://127.0.0.1:9",
    }
    checked = run("serve", "--check", more=variables)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == "The configuration is valid: databases: 1, tokens: 1, listen: 127.0.0.1:0\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_the_request_under_way_is_answered(tmp_path: Path, number: int) -> None:
    with serving(configuration(tmp_path, ACME)) as running, ThreadPoolExecutor() as threads:
        answer = threads.submit(wait_for, running.url, 1.5)
        until_under_way(running.url)
        running.process.send_signal(number)
        assert answer.result().json() == {"ok": 1, "result": "waited"}
        assert running.process.wait(timeout=10) == 0
        assert running.process.stderr is not None
        assert running.process.stderr.read() == b""


def test_a_signal_during_the_start_ends_it_with_0(tmp_path: Path) -> None:
    # Python is asked to say what it imports: with the first module of ours, the handler is set.
    config = configuration(tmp_path, ACME)
    process = subprocess.Popen(
        [sys.executable, "-v", *command("serve", "--config", str(config))],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"import 'pydantic'" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    assert process.wait(timeout=10) == 0
    assert process.stdout is not None
    assert b"listening" not in process.stdout.read()


def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run("serve", "--config", str(configuration(tmp_path, ACME, listen=f"127.0.0.1:{port}")))
    assert ended.returncode == 2
    assert ended.stderr == f"dbvalet: listen: cannot take 127.0.0.1:{port}: Address already in use\n"
    assert ended.stdout == ""


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_a_mistake_in_the_configuration_is_one_line_that_names_the_key(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    config = configuration(tmp_path, {"id": "ad-x", "url": "oracle://valet:very-secret@127.0.0.1/app"})
    ended = run("serve", "--config", str(config), *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("dbvalet: databases.0.url: must begin with one of ")
    assert ended.stderr.count("\n") == 1
    assert "very-secret" not in ended.stderr + ended.stdout


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ended = run("serve", "--config", str(tmp_path / "none.yaml"))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "none.yaml cannot be read: No such file or directory" in ended.stderr


def test_both_ways_to_write_the_start_are_the_same(tmp_path: Path) -> None:
    # `--config FILE` goes past the command line's library, `--config=FILE` through it.
    config = tmp_path / "none.yaml"
    short, long = (run("serve", *words) for words in (["--config", str(config)], [f"--config={config}"]))
    assert (short.returncode, short.stderr) == (long.returncode, long.stderr)


def test_the_service_does_not_import_what_only_the_command_line_needs(tmp_path: Path) -> None:
    config = configuration(tmp_path, ACME)
    seen = "import sys, agent.serve; agent.serve.put_together(__import__('pathlib').Path(sys.argv[1]));"
    seen += "from agent import listen; print([each for each in sys.modules if each in sys.argv[2].split(',')])"
    names = "typer,rich,rich.console,httpx,psycopg,pymysql,pymongo,influxdb,requests,yaml.foo"
    ended = subprocess.run(
        [sys.executable, "-c", seen, str(config), names], env=environment(), capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_what_the_toolkit_of_the_state_would_bring_along_is_left_out(tmp_path: Path) -> None:
    with serving(configuration(tmp_path, ACME)) as running:
        assert wait_for(running.url, 0).status_code == 200  # a write, which the audit keeps
        mapped = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "/sqlalchemy/" in mapped
    assert "/greenlet/" not in mapped


def test_it_listens_beyond_loopback_when_told_to(tmp_path: Path) -> None:
    with serving(configuration(tmp_path, ACME, listen="0.0.0.0:0", insecure_listen=True)) as running:
        port = running.url.rpartition(":")[2]
        assert running.url == f"http://0.0.0.0:{port}"
        # Every address of 127.0.0.0/8 is this machine's; only 127.0.0.1 is what a loopback listener takes.
        assert httpx.get(f"http://127.0.0.2:{port}/livez").status_code == 200


def test_beyond_loopback_without_tls_it_does_not_start(tmp_path: Path) -> None:
    ended = run("serve", "--config", str(configuration(tmp_path, ACME, listen="0.0.0.0:0")))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("dbvalet: listen: is not loopback, ")
    for way_out in ("tls", "insecure_listen: true", "DBVALET_INSECURE_LISTEN=true"):
        assert way_out in ended.stderr


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> str:
    """A host name that stands for two addresses of this machine."""

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "two.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr("agent.listen.socket.getaddrinfo", resolve)
    return "two.example"


def test_a_host_name_is_bound_on_each_of_its_addresses_with_one_port(two_addresses: str) -> None:
    first, second = bind(two_addresses, 0)
    with first, second:
        assert [first.getsockname()[0], second.getsockname()[0]] == ["127.0.0.1", "127.0.0.2"]
        assert first.getsockname()[1] == second.getsockname()[1] > 0


def test_an_address_that_this_machine_does_not_have_does_not_hinder_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # A container without IPv6 whose /etc/hosts has ::1 for localhost all the same.
    def resolve(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("192.0.2.1", "127.0.0.1")]

    monkeypatch.setattr("agent.listen.socket.getaddrinfo", resolve)
    (only,) = bind("localhost", 0)
    with only:
        assert only.getsockname()[0] == "127.0.0.1"


def test_a_host_without_any_address_of_this_machine_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match=r"listen: cannot take 192\.0\.2\.1:0: Cannot assign requested address"):
        bind("192.0.2.1", 0)


def test_the_ipv6_wildcard_takes_ipv4_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this kernel has no IPv6")
    (listener,) = bind("::", 0)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5):
        pass


def test_a_host_that_is_not_known_names_the_key() -> None:
    with pytest.raises(SettingsError, match=r"listen: the host nowhere\.invalid cannot be resolved"):
        bind("nowhere.invalid", 0)


def test_nothing_stays_bound_after_a_refusal(two_addresses: str) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot take two.example:{port}: Address already in use") as refused:
            bind(two_addresses, port)
    # The exception still holds the frame of `bind`, and with it whatever is not closed.
    assert refused.value.key == "listen"
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")])
def test_addresses_are_written_as_in_a_url(host: str, written: str) -> None:
    assert shown(host, 80) == written
