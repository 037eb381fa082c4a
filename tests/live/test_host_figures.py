"""Figures of the host: what the kernel counts of a container of this machine, against what Docker itself tells."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.cgroup import is_cgroup, read_cgroup
from tests.fakes.service import TOKENS, Valet, running
from tests.live.accounts import account_on
from tests.live.servers import LiveServer, spawn

ROOT = Path("/sys/fs/cgroup")
LIMIT = 256 * 1024 * 1024
VERSION = pytest.mark.engine_images("postgresql:18")


def cgroup_of(container_id: str) -> Path:
    """Find a container's control group, whatever version and driver the machine has."""
    for place in (
        ROOT / f"system.slice/docker-{container_id}.scope",
        ROOT / f"docker/{container_id}",
        ROOT / f"{{controller}}/docker/{container_id}",
        ROOT / f"{{controller}}/system.slice/docker-{container_id}.scope",
    ):
        if is_cgroup(place):
            return place
    # Where Docker itself runs in a group, its containers are somewhere below.
    for folder in [ROOT, ROOT / "memory"]:
        for found in folder.rglob(f"*{container_id}*"):
            relative = found.relative_to(folder)
            return ROOT / "{controller}" / relative if folder.name == "memory" else found
    raise LookupError(container_id)


def work(live: LiveServer, command: str) -> None:
    ended = live.container.get_wrapped_container().exec_run(["sh", "-c", command])
    assert ended.exit_code == 0, ended.output


def until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.1)


@VERSION
async def test_the_figures_of_a_container_are_those_that_docker_tells() -> None:
    with spawn("postgresql", "18") as live:
        container = live.container.get_wrapped_container()
        place = cgroup_of(str(container.id))
        before = read_cgroup(place)
        assert before.memory_limit is None
        container.update(mem_limit=LIMIT, memswap_limit=2 * LIMIT)
        work(live, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
        after = read_cgroup(place)
        told: Any = container.stats(stream=False)
        assert before.cpu_seconds is not None
        assert after.cpu_seconds is not None
        assert after.cpu_seconds > before.cpu_seconds
        total = told["cpu_stats"]["cpu_usage"]["total_usage"] / 1_000_000_000
        assert after.cpu_seconds == pytest.approx(total, abs=1)
        assert after.memory is not None
        assert after.memory_limit == LIMIT == told["memory_stats"]["limit"]
        stats = told["memory_stats"]["stats"]
        cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
        assert after.memory == pytest.approx(told["memory_stats"]["usage"] - cached, rel=0.3)
        if after.swap is not None:  # a kernel may not account for it
            assert after.swap_limit == LIMIT


@VERSION
async def test_metrics_show_them_in_place_of_what_the_engine_does_not_tell(tmp_path: Path) -> None:
    with spawn("postgresql", "18") as live:
        container = live.container.get_wrapped_container()
        container.update(mem_limit=LIMIT, memswap_limit=2 * LIMIT)
        place = cgroup_of(str(container.id))
        from engines.engine import installed_engines

        url = account_on(live)
        databases = [
            {"id": "ad-one", "url": url, "cgroup": str(place), "data_disk": str(tmp_path)},
            {"id": "ad-two", "url": url},
        ]
        tokens = [{"name": "admin", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]}]
        async with running(databases=databases, tokens=tokens, engines=installed_engines()) as valet:
            await shown(valet, "ad-one")
            work(live, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
            body = await shown(valet, "ad-one")
            assert body["cpu_usage"] > 0
            assert 0 < body["memory"]["memory"] < LIMIT
            assert body["memory"]["memory_limit"] == LIMIT
            size = shutil.disk_usage(tmp_path).total
            (instance,) = body["instances_metrics"].values()
            assert instance["disk"]["disk_size"] == size
            assert 0 < body["real_disk_size"] <= size
            untold = await shown(valet, "ad-two")
            assert untold["cpu_usage"] is None
            assert set(untold["memory"].values()) == {None}
            assert untold["real_disk_size"] is None
        container.stop()
        until(lambda: not is_cgroup(place))
        assert read_cgroup(place).memory is None


async def shown(valet: Valet, database: str) -> Any:
    return (await valet.ask("GET", f"/api/databases/{database}/metrics")).json()
