"""The Docker engine as who stops and starts a server: one container, through its socket."""

import asyncio
import subprocess
from collections.abc import Iterator
from secrets import token_hex

import pytest

from engines.address import parse_address
from engines.errors import RecoveryFailed
from engines.postgresql import ENGINE
from engines.postgresql.recovery.control import Docker, control_of
from engines.postgresql.recovery.server import PostgresRecovery
from engines.postgresql.server import PostgresServer
from engines.recovery import DockerControl, RecoverySettings
from tests.live.images import find_image
from tests.live.recovery.cluster import OWNER_LABEL

IMAGE = "postgresql:15"

pytestmark = pytest.mark.engine_images(IMAGE)


@pytest.fixture
def container() -> Iterator[str]:
    name = f"dbvalet-control-{token_hex(4)}"
    image = find_image(*IMAGE.split(":")).name
    words = ["--detach", f"--name={name}", f"--label={OWNER_LABEL}=recovery", "--env=POSTGRES_HOST_AUTH_METHOD=trust"]
    subprocess.run(["docker", "run", *words, image], check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


def exit_code(container: str) -> str:
    shown = ["docker", "inspect", "--format", "{{.State.ExitCode}}", container]
    return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()


async def until_ready(control: Docker) -> None:
    async with asyncio.timeout(60):
        while "ready to accept connections" not in await control.failure_log():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.1)


async def test_a_container_is_stopped_in_order_started_and_its_log_read(container: str) -> None:
    control = control_of(DockerControl(container=container), stop_seconds=30)
    assert isinstance(control, Docker)
    assert await control.is_running()
    await until_ready(control)
    await control.start()  # nothing to do
    await control.stop()
    assert not await control.is_running()
    assert exit_code(container) == "0"  # not killed: SIGINT is a fast shutdown
    await control.stop()
    await control.start()
    assert await control.is_running()
    log = await control.failure_log()
    assert "\0" not in log
    assert "database system" in log or "initdb" in log or "postgres" in log


async def test_a_server_that_had_to_be_killed_is_not_taken_for_stopped_in_order(container: str) -> None:
    control = control_of(DockerControl(container=container), stop_seconds=0)
    assert isinstance(control, Docker)
    await until_ready(control)
    with pytest.raises(RecoveryFailed, match="Docker killed it"):
        await control.stop()


@pytest.fixture
def ending() -> Iterator[str]:
    """One that ends by a FATAL, and that Docker starts again each time."""
    name = f"dbvalet-control-{token_hex(4)}"
    image = find_image(*IMAGE.split(":")).name
    words = ["--detach", "--restart=always", f"--name={name}", f"--label={OWNER_LABEL}=recovery", "--entrypoint=sh"]
    ends = "echo 'FATAL:  recovery ended before configured recovery target was reached'; sleep 0.5; exit 1"
    subprocess.run(["docker", "run", *words, image, "-c", ends], check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


async def test_a_server_that_docker_starts_again_and_again_is_seen_to_end(ending: str) -> None:
    nobody = ENGINE.connect(parse_address("postgresql://nobody@127.0.0.1:9/postgres", ENGINE.default_port))
    assert isinstance(nobody, PostgresServer)
    settings = RecoverySettings(stanza="main", control=DockerControl(container=ending), stop_seconds=10)
    recovery = PostgresRecovery(nobody, settings)
    async with asyncio.timeout(60):
        with pytest.raises(RecoveryFailed, match="FATAL:  recovery ended before"):
            await recovery.wait_promoted(lambda _percent, _words: None)
        while await recovery.is_running():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
        await recovery.stop()  # while Docker waits to start it again
        await asyncio.sleep(2)
        assert not await recovery.is_running()
    await nobody.close()


async def test_a_container_that_is_not_there_and_an_engine_that_is_not_are_told() -> None:
    with pytest.raises(RecoveryFailed, match="No such container"):
        await control_of(DockerControl(container="dbvalet-none"), 1).stop()
    absent = DockerControl(container="pg", socket="unix:///nowhere/docker.sock")
    with pytest.raises(RecoveryFailed, match="Docker does not answer"):
        await control_of(absent, 1).is_running()
