"""Where backups stand, for a served dbvalet: a disk that is full, S3-compatible storage, and a stream of a gigabyte."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.live.servers import LiveServer, free_port
from tests.live.test_backup_routes import ONE, Content, Postgres, prepared
from tests.unit.running import INSTALLED

MIB = 1024 * 1024
MOST_MORE = 64 * MIB
NOISE = "SELECT string_agg(sha512((n * 1000 + m)::text::bytea), '') FROM generate_series(1, 1000) AS m"
"""64,000 bytes that hardly get smaller, made by the server."""

pytestmark = pytest.mark.newest_version


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def add_noise(content: Content, table: str, rows: int) -> None:
    assert isinstance(content, Postgres)
    with psycopg.connect(content.url, autocommit=True) as session:
        session.execute(
            f"CREATE TABLE {table} AS SELECT n, ({NOISE}) AS noise FROM generate_series(1, {rows}) AS n".encode()
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_told_and_nothing_of_the_backup_is_left(postgresql: LiveServer, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    backups = {"storage": f"file://{storage}", "spool": str(tmp_path / "spool")}
    with small_disk(storage, "3m"), prepared(postgresql, tmp_path, backups=backups) as (valet, content):
        before = content.look()
        with valet.serving():
            older = valet.back_up()
            add_noise(content, "noise", 100)
            begun = valet.post(f"{ONE}/backups")["database_backup"]
            ended = valet.ended(begun["operation_id"])
            assert ended["status"] == "error", ended
            assert "No space left on device" in ended["error"]
            assert valet.get(f"/api/backups/{begun['id']}", "database_backup")["status"] == "error"
            assert [each.name for each in storage.rglob("*.*") if each.is_file()] == [f"{older['id']}.tar.gz"]
            assert list((tmp_path / "spool").rglob("*")) == []
            restored = valet.post(f"{ONE}/backups/{older['id']}/restore")
            assert valet.ended(restored["operation_id"])["status"] == "finished"
        assert content.look() == before


@contextmanager
def s3(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve S3 from this machine; gives its address and what a dbvalet needs to reach it."""
    packages = folder / "packages"
    wanted = ["s3fs>=2025.10", "moto[server]>=5.1"]
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", packages]
    subprocess.run([*argv, *wanted], check=True, stdout=subprocess.DEVNULL)
    variables = {"PYTHONPATH": f"{INSTALLED}{os.pathsep}{packages}"}
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        ends_at = time.monotonic() + 60
        while True:
            try:
                httpx.put(f"{url}/backups", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                assert time.monotonic() < ends_at
                time.sleep(0.2)
        yield url, variables
    finally:
        server.terminate()
        server.wait(10)


def keys_in(url: str) -> list[str]:
    text = httpx.get(f"{url}/backups?list-type=2", trust_env=False).text
    return [each.partition("<")[0] for each in text.split("<Key>")[1:]]


@pytest.mark.long
def test_backups_stand_in_s3_compatible_storage(postgresql: LiveServer, tmp_path: Path) -> None:
    with s3(tmp_path) as (url, variables):
        options = {"key": "dbvalet", "secret": "the-secret-of-s3", "endpoint_url": url}
        backups = {"storage": "s3://backups/of/mine", "options": options}
        with prepared(postgresql, tmp_path, backups=backups) as (valet, content):
            valet.variables |= variables
            add_noise(content, "noise", 300)  # in several parts
            before = content.look()
            with valet.serving():
                backup = valet.back_up()
                assert backup["size"] > 12 * MIB
                assert keys_in(url) == [f"of/mine/ad-x/{backup['id']}.tar.gz"]
                link = valet.get(f"{ONE}/backups/{backup['id']}/archive", "download_url")
                whole = httpx.get(link, trust_env=False).content
                assert len(whole) == backup["size"]
                tail = httpx.get(link, headers={"Range": "bytes=-1000"}, trust_env=False)
                assert (tail.status_code, tail.content) == (206, whole[-1000:])
                content.spoil()
                begun = valet.post(f"{ONE}/backups/{backup['id']}/restore")
                assert valet.ended(begun["operation_id"])["status"] == "finished"
                assert content.look() == before
                assert valet.client.delete(f"{ONE}/backups/{backup['id']}").status_code == 204
                assert keys_in(url) == []
        lost = {"storage": "s3://no-such-bucket/mine", "options": options}
        folder = tmp_path / "lost"
        folder.mkdir()
        with prepared(postgresql, folder, backups=lost) as (valet, content):
            valet.variables |= variables
            with valet.serving():
                begun = valet.post(f"{ONE}/backups")["database_backup"]
                ended = valet.ended(begun["operation_id"])
                assert ended["status"] == "error", ended
                assert "bucket does not exist" in ended["error"]
                assert "the-secret-of-s3" not in ended["error"]


def peak_of(process_id: int) -> int:
    """Give the most memory that a process has had since it was last asked."""
    status = Path(f"/proc/{process_id}/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    Path(f"/proc/{process_id}/clear_refs").write_text("5")
    return peak


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_gigabyte_passes_through_without_being_held(
    postgresql: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.live.test_backup_routes.LIMIT", 600)
    with prepared(postgresql, tmp_path) as (valet, content), valet.serving() as running:
        small = valet.back_up()
        begun = valet.post(f"{ONE}/backups/{small['id']}/restore")
        assert valet.ended(begun["operation_id"])["status"] == "finished"
        before = content.look()
        add_noise(content, "noise", 16_500)
        process_id = running.process.pid
        peak_of(process_id)
        beginning = peak_of(process_id)
        rises: dict[str, int] = {}
        backup = valet.back_up()
        assert backup["size"] > 1_000_000_000
        rises["backup"] = peak_of(process_id) - beginning
        received = 0
        link = valet.get(f"{ONE}/backups/{backup['id']}/archive", "download_url")
        with httpx.stream("GET", link, trust_env=False) as answer:
            for block in answer.iter_raw():
                received += len(block)
        assert received == backup["size"]
        rises["download"] = peak_of(process_id) - beginning
        begun = valet.post(f"{ONE}/backups/{backup['id']}/restore")
        assert valet.ended(begun["operation_id"])["status"] == "finished"
        rises["restore"] = peak_of(process_id) - beginning
        assert content.look()[1] == before[1]
        print({name: f"{rise / MIB:.1f} MiB" for name, rise in rises.items()})
        assert max(rises.values()) < MOST_MORE, rises
