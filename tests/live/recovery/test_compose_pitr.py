"""deploy/compose.pitr.yaml as a newcomer brings it up, and docs/recovery.md followed by whoever has just lost data."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.images import find_image
from tests.live.own_image import CHECKOUT
from tests.live.servers import OWNER, free_port, owner_label, remove_abandoned
from tests.live.test_compose import MAKE_SECRETS, compose_command, run

IMAGE = "postgresql:15"

# It builds an image of its own and starts five containers: a minute and more.
pytestmark = [pytest.mark.engine_images(IMAGE), pytest.mark.timeout(900), pytest.mark.long]

FILE = CHECKOUT / "deploy" / "compose.pitr.yaml"
SERVICES = ("volumes", "postgresql", "first-backup", "dbvalet")
OWN_IMAGE = "dbvalet-test/dbvalet-pitr"
TOKEN = ("--token-file", "/run/secrets/token")


class Project:
    def __init__(self, folder: Path) -> None:
        run(MAKE_SECRETS, folder / "secrets")
        labels = {service: {"labels": {OWNER: owner_label(os.getpid())}} for service in SERVICES}
        (folder / "override.yaml").write_text(json.dumps({"services": labels}))
        self._environment = {
            "DBVALET_IMAGE": OWN_IMAGE,
            "DBVALET_PORT": str(free_port()),
            "DBVALET_SECRETS": str(folder / "secrets"),
            "POSTGRESQL_IMAGE": find_image(*IMAGE.split(":")).name,
            "POSTGRESQL_ENTRYPOINT": entrypoint_of(find_image(*IMAGE.split(":")).name),
        }
        files = ("--file", str(FILE), "--file", str(folder / "override.yaml"))
        self._command = (*compose_command(), "--project-name", f"dbvalet-pitr-{os.getpid()}", *files)

    def compose(self, *arguments: str) -> str:
        return run(*self._command, *arguments, env=self._environment)

    def dbvalet(self, *words: str) -> str:
        return self.compose("exec", "-T", "dbvalet", "dbvalet", *words)

    def sql(self, statement: str) -> str:
        command = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-d", "app", "-Atc", statement)
        return self.compose("exec", "-T", "-u", "postgres", "postgresql", *command).strip()


def entrypoint_of(image: str) -> str:
    """The official image's is on the PATH; that of an image from packages is where it says."""
    shown = subprocess.run(["docker", "inspect", image], capture_output=True, text=True, check=True).stdout
    return json.loads(shown)[0]["Config"]["Entrypoint"][0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    packages = {"PACKAGES": "pgbackrest postgresql-client"}
    run(CHECKOUT / "deploy" / "build-image", OWN_IMAGE, env=packages)
    remove_abandoned()
    project = Project(tmp_path_factory.mktemp("pitr"))
    try:
        project.compose("up", "--detach", "--no-build")
        yield project
    finally:
        project.compose("down", "--volumes")


def until_doctor_is_content(project: Project) -> dict[str, Any]:
    ends_at = time.monotonic() + 120
    while True:
        try:
            found = json.loads(project.dbvalet("doctor", "--config", "/etc/dbvalet.yaml", "--json"))
        except AssertionError as failed:
            assert time.monotonic() < ends_at, (failed, project.compose("logs"))
            time.sleep(1)
            continue
        return {each["action"]: each for each in found["databases"][0]["actions"]}


def test_the_page_for_whoever_has_just_lost_data(project: Project) -> None:
    assert until_doctor_is_content(project)["restore-to-instant"]["ready"] == "yes"
    project.sql("CREATE TABLE customers AS SELECT generate_series(1, 1000) AS id")
    time.sleep(1.5)
    good = project.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    project.sql("DROP TABLE customers")
    window = project.dbvalet("backups", "window", "ad-postgresql", *TOKEN)
    assert "earliest recoverable at" in window
    project.dbvalet("backups", "restore", "ad-postgresql", "--at", good, "--yes", *TOKEN)
    assert project.sql("SELECT count(*), max(id) FROM customers") == "1000|1000"
    # Writes go on, and are archived from the new timeline.
    project.sql("INSERT INTO customers VALUES (1001)")
    assert project.sql("SELECT count(*) FROM customers") == "1001"


def test_a_dump_is_made_too_with_the_programs_of_the_image(project: Project) -> None:
    said = project.dbvalet("backups", "create", "ad-postgresql", *TOKEN)
    assert "done" in said or "finished" in said, said
