"""dbvalet's image as people run it: without root, without a writable file system, without any capability."""

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import psycopg
import pytest
import trustme
from docker.models.containers import Container
from psycopg import sql
from psycopg.pq import DiagnosticField
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from tests.live.admins import refuse_admins
from tests.live.own_image import CHECKOUT, own_image
from tests.live.servers import OWNER, LiveServer, owner_label, spawn

# Where the image is not there yet, it is built first.
pytestmark = [pytest.mark.engine_images("postgresql:18"), pytest.mark.timeout(600)]

TOKEN = "token-of-the-container-tests"
PASSWORD = "pass/word:of@the#valet"
CHECK = ("python", "-I", "-m", "agent.healthcheck")

TRY_TO_WRITE = """
import os
for folder, _, _ in os.walk("/"):
    if folder.split("/")[1] not in ("dev", "proc", "sys"):
        probe = os.path.join(folder, ".probe")
        try:
            open(probe, "x").close()
        except OSError:
            continue
        os.remove(probe)
        print(folder)
"""

LIST_FILES = """
import os
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"dev", "proc", "sys"}
    for name in files:
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            with open(path, "rb") as file:
                is_key = file.read(5) == b"-----" and b"PRIVATE KEY-----" in file.read()
            print(oct(os.stat(path).st_mode), is_key, path)
"""

TOOLS = {"as", "c++", "cc", "cpp", "g++", "gcc", "ld", "make", "pip", "pip3"}


def docker(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


@dataclass
class Running:
    """A dbvalet in a container, and an HTTP client with its token."""

    container: Container
    http: httpx.Client

    def state(self) -> dict[str, Any]:
        self.container.reload()
        return self.container.attrs["State"]

    def wait_for_health(self, wanted: str) -> None:
        deadline = time.monotonic() + 30
        while (health := self.state()["Health"])["Status"] != wanted:
            assert time.monotonic() < deadline, (health, self.container.logs(tail=20).decode())
            time.sleep(0.1)

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Run a command in the container, as its own user."""
        variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        return docker("exec", *variables, str(self.container.id), *command)

    def act(self, name: str, params: object = None) -> Any:
        answer = self.http.post("/api/databases/ad-local/action", json={"action_name": name, "params": params})
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def describe(self) -> dict[str, Any]:
        return self.http.get("/api/databases/ad-local").json()["database"]


@contextmanager
def running(
    image: str,
    url: str,
    volume: str | None = None,
    *,
    entrypoint: str | None = None,
    files: Path | None = None,
    tls: ssl.SSLContext | None = None,
    **variables: str,
) -> Iterator[Running]:
    """Run the image as docs/deploy.md says; `volume` is a named one for the state, `files` are what it finds in /files.

    `tls` is how it is spoken with.
    """
    refuse_admins(url)
    container = (
        DockerContainer(image)
        .with_envs(DBVALET_TOKEN=TOKEN, DBVALET_DATABASE_URL=url, **variables)
        .with_exposed_ports(8000)
        .with_kwargs(
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            # In nanoseconds. What is checked, and how often in vain, is the image's.
            healthcheck={"interval": 500_000_000, "start_period": 1_000_000},
            labels={OWNER: owner_label(os.getpid())},
            entrypoint=entrypoint,
        )
    )
    if volume:
        container.with_volume_mapping(volume, "/var/lib/dbvalet", "rw")
    if files:
        container.with_volume_mapping(str(files), "/files", "ro")
    with container:
        scheme = "https" if tls else "http"
        base = f"{scheme}://{container.get_container_host_ip()}:{container.get_exposed_port(8000)}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=base, headers=headers, timeout=30, verify=tls or True) as http:
            yield Running(container.get_wrapped_container(), http)


def run_once(image: str, *command: str, options: Sequence[str] = ()) -> tuple[int, str]:
    """Run the image to its end; give its exit code and what it printed."""
    return docker("run", "--rm", "--read-only", *options, image, *command)


@pytest.fixture(scope="module")
def image() -> str:
    return own_image()


@pytest.fixture(scope="module")
def postgres() -> Iterator[LiveServer]:
    with spawn("postgresql", "18") as server:
        yield server


@pytest.fixture(scope="module")
def url(image: str, postgres: LiveServer) -> str:
    """The URL of an account made by the script that the image prints, as other containers reach the server."""
    command = ["docker", "run", "--rm", "--read-only", image, "grants", "postgresql", "--database", postgres.database]
    # What is told beside the script is no part of it.
    script = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    with psycopg.connect(postgres.url()) as admin:
        admin.execute(script)
        admin.execute(sql.SQL("ALTER ROLE valet PASSWORD {}").format(PASSWORD))
    container = postgres.container.get_wrapped_container()
    container.reload()
    address: str = container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    return replace(postgres, host=address, port=5432).url("valet", PASSWORD)


@pytest.fixture(scope="module")
def valet(image: str, url: str) -> Iterator[Running]:
    with running(image, url) as valet:
        valet.wait_for_health("healthy")
        yield valet


@pytest.fixture
def volume() -> Iterator[str]:
    volume = DockerClient().client.volumes.create(labels={OWNER: owner_label(os.getpid())})
    yield volume.name
    volume.remove()


def test_a_query_is_seen_and_cancelled_on_a_live_server(valet: Running, postgres: LiveServer) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE app_user LOGIN PASSWORD 'x'")
        with psycopg.connect(postgres.url("app_user", "x"), autocommit=True) as user:
            pid = user.info.backend_pid
            user.pgconn.send_query(b"SELECT pg_sleep(60)")
            deadline = time.monotonic() + 10
            while not any(query["pid"] == pid and query["state"] == "active" for query in valet.act("pg-list-queries")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            valet.act("pg-cancel-query", {"pid": pid})
            ended = user.pgconn.get_result()
            assert ended is not None
            assert ended.error_field(DiagnosticField.SQLSTATE) == b"57014"
            assert user.pgconn.get_result() is None
            state = admin.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
            assert state == ("idle",)


def test_it_has_no_root_no_capability_and_one_folder_to_write_to(valet: Running) -> None:
    code, status = valet.run("cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert code == 0
    assert fields["Uid"].split() == ["10001"] * 4
    assert fields["Gid"].split() == ["10001"] * 4
    assert fields["NoNewPrivs"] == "1"
    assert [fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == ["0" * 16] * 4
    assert valet.run("python", "-c", TRY_TO_WRITE) == (0, "/var/lib/dbvalet\n")


def test_the_health_check_asks_where_the_service_listens(valet: Running) -> None:
    assert valet.run(*CHECK) == (0, "")
    code, said = valet.run(*CHECK, DBVALET_LISTEN="0.0.0.0:8001")
    assert code == 1
    assert said.startswith("dbvalet does not answer at 0.0.0.0:8001: ")


def test_it_speaks_mutual_tls_and_its_health_check_too(image: str, url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1", "172.17.0.1")
    # Not pytest's folder itself, which is for its owner: in the container the user is another one.
    files = tmp_path / "files"
    files.mkdir(mode=0o755)
    own.private_key_and_cert_chain_pem.write_to_path(files / "own.pem")
    authority.cert_pem.write_to_path(files / "ca.pem")
    for file in files.iterdir():
        file.chmod(0o644)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    own.configure_cert(context)
    variables = {
        "DBVALET_TLS": '{"certificate": "/files/own.pem", "key": "/files/own.pem", "client_ca": "/files/ca.pem"}',
        "DBVALET_CA_FILE": "/files/ca.pem",
        "DBVALET_CLIENT_CERTIFICATE": "/files/own.pem",
        "DBVALET_INSECURE_LISTEN": "false",
    }
    with running(image, url, files=files, tls=context, **variables) as valet:
        valet.wait_for_health("healthy")
        assert valet.act("pg-list-queries") is not None
        assert valet.run("dbvalet", "healthcheck") == (0, "")
        code, said = valet.run("dbvalet", "healthcheck", DBVALET_CLIENT_CERTIFICATE="")
        assert (code, said.startswith("dbvalet does not answer at 0.0.0.0:8000: ")) == (1, True)
        code, listed = valet.run("dbvalet", "call", "ad-local", "pg-list-queries", DBVALET_URL="https://localhost:8000")
        assert code == 0, listed
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{valet.http.base_url.host}:{valet.http.base_url.port}/livez")


def test_it_is_healthy_without_its_engine_and_unhealthy_without_the_service(image: str) -> None:
    # Nobody is at 192.0.2.1 (RFC 5737). Starting dbvalet again would not bring an engine back.
    nowhere = "postgresql://valet@192.0.2.1/app"
    with running(image, nowhere) as valet:
        valet.wait_for_health("healthy")
    with running(image, nowhere, entrypoint="sleep 60") as nothing:
        nothing.wait_for_health("unhealthy")


def test_the_state_outlives_the_container(image: str, url: str, postgres: LiveServer, volume: str) -> None:
    with running(image, url, volume) as valet:
        valet.wait_for_health("healthy")
        born = valet.describe()["created_at"]
        assert born is not None
    # Stopped, it could come back at another address than the one that containers have of it.
    with postgres.paused(), running(image, url, volume) as valet:
        valet.wait_for_health("healthy")
        known = valet.describe()
        assert (known["status"], known["created_at"]) == ("stopped", born)


def test_sigterm_ends_it_in_order(image: str, url: str) -> None:
    with running(image, url) as valet:
        valet.wait_for_health("healthy")
        valet.act("pg-list-queries")
        began = time.monotonic()
        valet.container.kill("SIGTERM")
        ended = valet.container.wait(timeout=10)
        assert ended["StatusCode"] == 0, valet.container.logs().decode()
        assert time.monotonic() - began < 3


def test_without_a_token_it_refuses_to_start(image: str) -> None:
    url = "postgresql://valet:hush@192.0.2.1/app"
    code, said = run_once(image, options=["--env", f"DBVALET_DATABASE_URL={url}"])
    assert code == 2
    assert said.startswith("dbvalet: ")
    assert "DBVALET_TOKEN" in said
    assert "hush" not in said
    assert said.count("\n") == 1


def test_the_image_says_what_it_is_and_holds_no_setting_but_its_own(image: str) -> None:
    attrs = DockerClient().client.images.get(image).attrs
    config = attrs["Config"]
    variables = dict(entry.split("=", 1) for entry in config["Env"])
    assert {name: value for name, value in variables.items() if name.startswith(("DBVALET_", "PIP_"))} == {
        "DBVALET_INSECURE_LISTEN": "true",
        "DBVALET_LISTEN": "0.0.0.0:8000",
        "DBVALET_STATE": "sqlite:////var/lib/dbvalet/state.db",
    }
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert list(config["Volumes"]) == ["/var/lib/dbvalet"]
    assert config["Labels"]["org.opencontainers.image.title"] == "dbvalet"
    assert attrs["Size"] < 300e6


def test_its_bill_of_materials_has_debian_python_and_dbvalet(image: str, tmp_path: Path) -> None:
    script = CHECKOUT / "scripts" / "write_sbom.py"
    subprocess.run([sys.executable, script, "--image", image, tmp_path], check=True)
    bill = json.loads((tmp_path / "image.cdx.json").read_text())
    kinds = {each["purl"].partition("@")[0] for each in bill["components"]}
    assert {"pkg:deb/debian/libc6", "pkg:pypi/dbvalet", "pkg:pypi/psycopg-binary"} <= kinds
    assert bill["metadata"]["component"]["version"] == DockerClient().client.images.get(image).id


def test_the_image_holds_no_installer_no_compiler_no_key_and_nothing_setuid(image: str) -> None:
    code, printed = run_once(image, "-c", LIST_FILES, options=["--user", "0", "--entrypoint", "python"])
    assert code == 0, printed
    files = [line.split(" ", 2) for line in printed.splitlines()]
    paths = [PurePosixPath(path) for _, _, path in files]
    assert PurePosixPath("/opt/dbvalet/bin/dbvalet") in paths
    assert [path for path in paths if path.name in TOOLS and path.parent.name in ("bin", "sbin")] == []
    assert [path for path in paths if not {"pip", "ensurepip", ".cache"}.isdisjoint(path.parts)] == []
    assert [path for path in paths if path.is_relative_to("/build") or path.suffix in (".whl", ".gz")] == []
    assert [path for path in paths if path.is_relative_to("/var/lib/apt/lists")] == []
    assert [path for _, is_key, path in files if is_key == "True"] == []
    assert [path for mode, _, path in files if int(mode, 8) & 0o6000] == []
