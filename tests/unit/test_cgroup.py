"""The files of a control group, as the kernel's manual shows them: the version that this machine has not, too."""

from pathlib import Path

import pytest

from agent.cgroup import HostFigures, is_cgroup, read_cgroup, read_disk

VERSION_2 = {
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
    "memory.current": "5000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 3000\nfile 2000\ninactive_file 1200\nactive_file 800\n",
    "memory.swap.current": "70\n",
    "memory.swap.max": "4096\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n259:0 rbytes=1 wbytes=2 rios=1 wios=1\n",
}
VERSION_1 = {
    "cpuacct/cpuacct.usage": "1500000000\n",
    "memory/memory.usage_in_bytes": "5000\n",
    "memory/memory.limit_in_bytes": "8192\n",
    "memory/memory.memsw.usage_in_bytes": "5070\n",
    "memory/memory.memsw.limit_in_bytes": "12288\n",
    "memory/memory.stat": "cache 2000\ninactive_file 1\ntotal_inactive_file 1200\ntotal_swap 70\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 10\n8:0 Write 20\n8:0 Sync 20\n8:0 Async 10\n8:0 Total 30\n7:0 Read 1\n7:0 Write 2\nTotal 33\n"
    ),
}
BOTH = {"cpu_seconds": 1.5, "memory": 3800, "swap": 70, "swap_limit": 4096, "bytes_read": 11, "bytes_written": 22}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


def test_version_2(tmp_path: Path) -> None:
    write(tmp_path, VERSION_2)
    assert is_cgroup(tmp_path)
    assert read_cgroup(tmp_path) == HostFigures(**BOTH, memory_limit=None)
    (tmp_path / "memory.max").write_text("8192\n")
    assert read_cgroup(tmp_path).memory_limit == 8192


def test_version_1(tmp_path: Path) -> None:
    write(tmp_path, VERSION_1)
    place = tmp_path / "{controller}"
    assert is_cgroup(place)
    assert read_cgroup(place) == HostFigures(**BOTH, memory_limit=8192)


def test_a_limit_of_version_1_that_is_none_is_none(tmp_path: Path) -> None:
    write(tmp_path, {"memory/memory.usage_in_bytes": "1\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert read_cgroup(tmp_path / "{controller}").memory_limit is None


@pytest.mark.parametrize("name", ["none", "{controller}"])
def test_what_is_not_there_is_not_known(tmp_path: Path, name: str) -> None:
    assert not is_cgroup(tmp_path / name)
    assert read_cgroup(tmp_path / name) == HostFigures()
    assert read_disk(tmp_path / name) == (None, None)


@pytest.mark.parametrize("missing", VERSION_2)
def test_a_file_that_is_missing_or_odd_leaves_the_others(tmp_path: Path, missing: str) -> None:
    write(tmp_path, VERSION_2)
    whole = read_cgroup(tmp_path)
    (tmp_path / missing).write_bytes(b"\xff?\n\n")
    assert len([1 for name in BOTH if getattr(read_cgroup(tmp_path), name) != getattr(whole, name)]) <= 2
    (tmp_path / missing).unlink()
    read_cgroup(tmp_path)
