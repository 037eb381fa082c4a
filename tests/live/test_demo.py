"""`dbvalet demo` as a process: what it shows is true, it notices when it is not, and it leaves nothing behind."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.demo.apt_packages import AptPackages
from engines.engine import installed_engines
from tests.leftovers import all_gone, descendants, wait_until
from tests.unit.running import command, environment

# The first one on a machine fetches packages.
pytestmark = pytest.mark.timeout(600)

LIMIT = 120
"""Seconds; the first run on a machine fetches engines."""

IDS = {"ad-pg": "postgresql", "ad-my": "mysql", "ad-mg": "mongodb", "ad-inf": "influxdb"}


@dataclass
class Demo:
    """A demo that runs, with whatever it keeps in a temporary folder of its own."""

    process: "subprocess.Popen[str]"
    temporary: Path
    pids: set[int] = field(default_factory=set[int])
    """Every process that has been seen to descend from it, itself among them."""
    output: str = ""

    def read_until(self, text: str) -> str:
        """Read what it prints up to a line that contains the text; nothing more is printed then."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return line
        raise AssertionError(f"no line with {text!r}:\n{self.output}\n{self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def watch(self) -> None:
        """Note its processes as long as it runs."""
        while self.process.poll() is None:
            self.pids |= {self.process.pid, *descendants(self.process.pid)}
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Wait for its end; give exit code and what it wrote on standard error."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait(LIMIT), self.errors()

    def leaves_nothing(self) -> bool:
        """Tell whether processes and files are gone within some seconds, as after SIGKILL others take them away."""
        return wait_until(lambda: all_gone(self.pids)) and wait_until(lambda: not any(self.temporary.iterdir()))


@contextmanager
def demo(temporary: Path, *arguments: str, program: list[str] | None = None) -> Iterator[Demo]:
    """Start it, and end it if the test did not."""
    process = subprocess.Popen(
        [*(program or command("demo")), *arguments],
        env=environment({"TMPDIR": str(temporary), "COLUMNS": "80"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Demo(process, temporary)
    watcher = threading.Thread(target=running.watch)
    watcher.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        watcher.join()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


@dataclass(frozen=True)
class Step:
    """One request of the tour with its answer, as printed."""

    request: str
    body: dict[str, Any]
    status: int
    answer: str


STEP = re.compile(
    r"^ {1,2}\d+\. (?:.*\n)(?: {5}(?!POST|GET).*\n)*"
    r" {5}(?P<request>(?:POST|GET) \S+)\n"
    r"(?P<body>(?: {5}.*\n)*?)"
    r" {5}(?P<status>\d{3}) [A-Z].*\)\n"
    r"(?P<answer>(?: {5}[^=\n].*\n)*)",
    re.MULTILINE,
)


def steps(output: str) -> list[Step]:
    return [
        Step(each["request"], json.loads(each["body"] or "{}"), int(each["status"]), each["answer"])
        for each in STEP.finditer(output)
    ]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make one that the servers' user can pass through, which it cannot through those of pytest."""
    with tempfile.TemporaryDirectory(prefix="dbvalet-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def temporary() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def toured() -> Iterator[Demo]:
    """One that ended after the tour, as it should."""
    with temporary_folder() as folder:
        with demo(folder, "--once") as running:
            assert running.end() == (0, "")
        yield running


def test_a_query_is_seen_cancelled_and_gone(toured: Demo) -> None:
    told = [step for step in steps(toured.output) if step.request == "POST /api/databases/ad-pg/action"]
    queries = [json.loads(step.answer)["result"] for step in told if step.body["action_name"] == "pg-list-queries"]
    (running,) = queries[0]
    assert (running["query"], running["state"]) == ("SELECT pg_sleep(60)", "active")
    wanted = {"pid": running["pid"], "backend_start": running["backend_start"]}
    (cancel,) = [step for step in told if step.body.get("params") == wanted]
    assert (cancel.body["action_name"], cancel.status) == ("pg-cancel-query", 200)
    (stopped,) = queries[1]
    assert (stopped["pid"], stopped["state"]) == (running["pid"], "idle")
    assert stopped["query_duration"] < 50 * 10**9, "it ran to its end"
    assert "= the application was told: canceling statement due to user request\n" in toured.output
    (open_transaction,) = queries[2]
    assert open_transaction["state"] == "idle in transaction"
    assert queries[3] == []


def test_every_action_is_done_on_every_engine_that_runs(toured: Demo) -> None:
    told = steps(toured.output)
    toured_ids = {step.request.split("/")[3] for step in told if step.request.startswith("POST")}
    if AptPackages.available():
        assert toured_ids == IDS.keys()
    assert "ad-pg" in toured_ids
    for number, engine in IDS.items():
        left_out = f"{installed_engines()[engine].title} was left out: " in " ".join(toured.output.split())
        assert (number in toured_ids) != left_out
    done = {(step.request, step.body["action_name"]) for step in told if step.body and step.status == 200}
    assert done == {
        (f"POST /api/databases/{number}/action", action)
        for number in toured_ids
        for action in installed_engines()[IDS[number]].actions
    }


def test_every_engine_that_runs_loses_data_and_has_it_again_from_a_backup(toured: Demo) -> None:
    told = steps(toured.output)
    toured_ids = {step.request.split("/")[3] for step in told if step.request.startswith("POST")}
    for number in toured_ids:
        (make,) = [step for step in told if step.request == f"POST /api/databases/{number}/backups"]
        if make.status == 409:
            assert (number, json.loads(make.answer)["code"]) == ("ad-my", "precondition")
            continue
        backup = json.loads(make.answer)["database_backup"]
        (restore,) = [step for step in told if step.request.endswith(f"/{number}/backups/{backup['id']}/restore")]
        assert (make.status, restore.status) == (201, 201)
        ends = [step for step in told if step.request.startswith(f"GET /api/databases/{number}/operations/")]
        assert [json.loads(step.answer)["operation"]["type"] for step in ends] == ["backup", "backup_restore"]
        assert {json.loads(step.answer)["operation"]["status"] for step in ends} == {"finished"}
    lost = re.findall(r"= the application loses data by mistake: (.+?) before, (.+?) now\n", unfolded(toured.output))
    again = re.findall(r"= the application has its data again: (.+)", unfolded(toured.output))
    assert [before for before, _ in lost] == again
    assert ("20000 rows, 200010000 in all", "no table orders") in lost
    assert len(again) == sum(step.request.endswith("/backups") and step.status == 201 for step in told) >= 1


def unfolded(output: str) -> str:
    """Put what was seen past dbvalet into one line each."""
    return re.sub(r"(?<=\S)\n {7}(?=\S)", " ", output)


def test_the_summary_counts_what_was_shown(toured: Demo) -> None:
    told = steps(toured.output)
    brought_back = toured.output.count("= the application has its data again: ")
    done = sum(step.status == 200 and bool(step.body) for step in told)
    refused = sum(step.status >= 400 for step in told)
    assert refused >= 3
    assert re.search(
        rf"\n{done} actions, {refused} refusals, {brought_back} databases brought back from a backup,"
        r" all as expected, in \d+\.\d s",
        toured.output.replace("all as\nexpected", "all as expected"),
    )
    numbers = re.findall(r"^ {1,2}(\d+)\. ", toured.output, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(told) + 1)]


def test_what_it_shows_fits_80_columns_without_colours(toured: Demo) -> None:
    _, _, tour = toured.output.partition("\n\n")
    assert max(map(len, tour.splitlines())) <= 80
    assert "\x1b" not in toured.output


def test_nothing_is_left_after_the_tour(toured: Demo) -> None:
    assert len(toured.pids) >= 5
    assert all_gone(toured.pids)
    assert [*toured.temporary.iterdir()] == []


@contextmanager
def serving(temporary: Path) -> Iterator[tuple[Demo, dict[str, str], str]]:
    """Start one that serves on; give what it says of itself and the commands to paste."""
    with demo(temporary) as running:
        running.read_until(" call ad-pg pg-list-queries")
        _, _, said = running.output.rpartition(" until Ctrl-C.\n")
        facts = dict(re.findall(r"^ {2}(\w+) {2,}(\S+)$", said, re.MULTILINE))
        yield running, facts, said.partition("another terminal:\n")[2]


def test_it_serves_until_ctrl_c_and_what_it_prints_to_paste_works(temporary: Path) -> None:
    with serving(temporary) as (running, facts, to_paste):
        assert httpx.get(facts["docs"], trust_env=False).status_code == 200
        headers = {"Authorization": f"Bearer {facts['token']}"}
        listed = httpx.get(f"{facts['address']}/api/databases", headers=headers, trust_env=False).json()["databases"]
        assert ("ad-pg", "running") in [(each["id"], each["status"]) for each in listed]

        # Not every machine has curl: this one prints its arguments.
        pasted = subprocess.run(
            ["sh", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}\n{to_paste}"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (pasted.returncode, pasted.stderr) == (0, "")
        assert pasted.stdout.splitlines()[:7] == [
            "-H",
            f"Authorization: Bearer {facts['token']}",
            "-H",
            "Content-Type: application/json",
            "-d",
            '{"action_name": "pg-list-queries"}',
            f"{facts['address']}/api/databases/ad-pg/action",
        ]
        assert "SELECT pg_sleep(86400)" in pasted.stdout

        running.process.send_signal(signal.SIGINT)
        assert running.end() == (0, "")
        assert running.output.endswith("Stopped. What the demo made is thrown away.\n")
        assert all_gone(running.pids)
        assert [*temporary.iterdir()] == []


def test_secrets_are_not_logged_and_nothing_is_left_after_it_was_killed(temporary: Path) -> None:
    with serving(temporary) as (running, facts, _):
        log = Path(facts["log"]).read_text()
        actions = [json.loads(line) for line in log.splitlines() if '"event":"action"' in line]
        assert {each["who"] for each in actions} == {"demo"}
        assert {"pg-cancel-query", "pg-terminate-query"} <= {each["action"] for each in actions}
        urls = [file.read_text() for file in Path(facts["log"]).parent.glob("ad-*.url")]
        passwords = [re.fullmatch(r"\w+://valet:([\w-]{20,})@.*\n", url) for url in urls]
        assert passwords
        for password in passwords:
            assert password is not None
            assert password[1] not in log + running.output
        assert facts["token"] not in log
        assert running.output.count(facts["token"]) == 1

        running.process.kill()
    assert running.leaves_nothing()


ONLY_POSTGRESQL = """
import agent.demo.engines as engines
from agent.demo.started import LeftOut

def none(*_):
    raise LeftOut("there is none on this machine, and there is no apt to get one")

engines.start_mysql = engines.start_mongodb = engines.start_influxdb = none
"""


def once_with(change: str) -> list[str]:
    """Run the demo in which something was changed."""
    start = "import sys\nsys.argv = ['dbvalet', 'demo', '--once']\nfrom agent.cli import main\nmain()"
    return [sys.executable, "-c", f"{change}\n{start}"]


def test_engines_that_are_not_to_be_had_are_left_out_and_named(temporary: Path) -> None:
    with demo(temporary, program=once_with(ONLY_POSTGRESQL)) as running:
        assert running.end() == (0, "")
    for title in ("MySQL", "MongoDB", "InfluxDB"):
        assert re.search(rf"^  {title} +left out: there is none on this machine", running.output, re.MULTILINE)
        assert f"\n{title} was left out: there is none on this machine" in running.output
    assert {step.request.split("/")[3] for step in steps(running.output) if step.body} == {"ad-pg"}
    assert ", all as expected, in " in " ".join(running.output.split())
    assert running.leaves_nothing()


def test_the_tour_fails_where_dbvalet_says_something_else(temporary: Path) -> None:
    change = "import agent.demo.tour_postgresql as tour\ntour.COUNT_IN_STATISTICS = 'SELECT another'"
    with demo(temporary, program=once_with(ONLY_POSTGRESQL + change)) as running:
        code, errors = running.end()
    assert code == 1
    assert re.fullmatch(
        r'dbvalet: the tour failed at step \d+, "Which statements .*": the result is another than the tour says\n',
        errors,
    )
    assert steps(running.output)[-1].body == {"action_name": "pg-stat-statements-list"}
    assert '"action":"pg-stat-statements-list"' in running.output, "the end of the log is shown"
    assert "as expected" not in running.output
    assert running.leaves_nothing()


@pytest.mark.long
def test_the_tour_fails_where_the_application_is_refused(temporary: Path) -> None:
    change = "import agent.demo.tour_postgresql as tour\ntour.COUNT = 'SELECT count(*) FROM nothing WHERE %s > 0'"
    with demo(temporary, program=once_with(ONLY_POSTGRESQL + change)) as running:
        code, errors = running.end()
    assert code == 1
    assert re.fullmatch(
        r"dbvalet: the tour failed at step \d+, .*the application was refused: UndefinedTable.*\n", errors
    )
    assert running.leaves_nothing()


@pytest.mark.long
def test_the_tour_fails_where_a_restore_brings_back_something_else(temporary: Path) -> None:
    change = """
import agent.demo.tour_postgresql as tour
from agent.demo.guide import Guide

ended = Guide.ended

def spoil(self, title, path):
    ended(self, title, path)
    if title.startswith("It ends"):
        with tour._application(spoilt[0]) as session:
            session.execute("DELETE FROM orders WHERE amount = 1")

spoilt = []
visit = tour.visit
Guide.ended = spoil

def noted(guide, deployment):
    spoilt.append(deployment)
    visit(guide, deployment)

import agent.demo.stops as stops
stops.STOPS["postgresql"] = noted
"""
    with demo(temporary, program=once_with(ONLY_POSTGRESQL + change)) as running:
        code, errors = running.end()
    assert code == 1
    assert 'this is not so: "the application has its data again: 20000 rows, 200010000 in all"' in errors
    assert running.leaves_nothing()


def test_without_postgresql_it_ends_with_one_line(temporary: Path) -> None:
    change = "engines.start_postgresql = none"
    with demo(temporary, program=once_with(ONLY_POSTGRESQL + change)) as running:
        assert running.end() == (1, "dbvalet: there is none on this machine, and there is no apt to get one\n")
    assert running.leaves_nothing()
