"""Which engine images a test run uses, and what a run that used none is worth."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.images import ENGINES, IMAGES, Engine, choose, find_image, newest

ROOT = Path(__file__).parents[2]


def keys(engine: Engine, *, every: bool = False, named: tuple[str, ...] = ()) -> list[str]:
    return [image.key for image in choose(engine, every=every, keys=named)]


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_an_everyday_run_takes_the_oldest_and_the_newest_of_each_engine() -> None:
    assert keys("postgresql") == ["postgresql:12", "postgresql:18"]
    assert keys("mysql") == ["mariadb:10.5", "mysql:9.7"]
    assert keys("mongodb") == ["mongodb:4.2", "mongodb:6.0"]
    assert keys("influxdb") == ["influxdb:1.6"]


def test_a_full_run_takes_every_image_of_the_list() -> None:
    assert [key for engine in ENGINES for key in keys(engine, every=True)] == [image.key for image in IMAGES]
    assert keys("postgresql", every=True) == [f"postgresql:{major}" for major in range(12, 19)]


def test_named_versions_are_taken_alone() -> None:
    named = ("postgresql:15", "mariadb:10.11")
    assert keys("postgresql", named=named) == ["postgresql:15"]
    assert keys("mysql", named=named, every=True) == ["mariadb:10.11"]
    assert keys("mongodb", named=named) == []


@pytest.mark.parametrize("key", ["postgresql:9", "postgresql", "oracle:23"])
def test_a_version_that_does_not_exist_is_refused_with_those_that_do(key: str) -> None:
    with pytest.raises(LookupError, match=r"postgresql:18"):
        choose("postgresql", every=False, keys=(key,))


def test_the_newest_of_mysql_is_mysql_itself() -> None:
    assert newest("mysql") == find_image("mysql", "9.7")


def test_an_official_image_is_used_only_for_the_keys_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_OFFICIAL_IMAGES", "postgresql:18,mongodb:6.0")
    names = [find_image(*key.split(":")).name for key in ("postgresql:18", "mongodb:6.0", "mysql:9.7")]
    assert names == ["postgres:18", "mongo:6.0", "dbvalet-test/mysql:9.7"]


def test_a_run_in_which_every_test_was_skipped_fails(tmp_path: Path) -> None:
    file = tmp_path / "test_nothing.py"
    file.write_text("import pytest\n\n@pytest.mark.skip\ndef test_skipped(): pass\n")
    assert run_pytest("-p", "tests.conftest", str(file)).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    file.write_text(file.read_text() + "\ndef test_run(): pass\n")
    assert run_pytest("-p", "tests.conftest", str(file)).returncode == pytest.ExitCode.OK


def test_tests_say_which_images_they_need(tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    run_pytest("--write-needed-images", str(needed), "tests/unit/test_engine_images.py")
    assert needed.read_text() == ""
    run_pytest("--write-needed-images", str(needed), "--engine=mysql", "tests/live/test_servers.py")
    assert needed.read_text() == "mariadb:10.5\nmysql:9.7\n"
    run_pytest("--write-needed-images", str(needed), "--engine=mysql", "tests/live/test_servers.py", "-k=missing_image")
    assert needed.read_text() == "mariadb:10.5\nmysql:9.7\n", "a test with servers of its own says nothing of them"
