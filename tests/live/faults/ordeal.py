"""One action meets one fault, and everything that a user may rely on is looked at."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.live.dying import AFTER, BEFORE, DURING
from tests.live.faults.case import Case, Look
from tests.live.faults.disk import Disk
from tests.live.faults.judgement import judge, shown_again
from tests.live.faults.killing import killed_and_asked_again
from tests.live.faults.kinds import Fault, Scenario
from tests.live.faults.place import Place
from tests.live.faults.proxy import Trap
from tests.live.faults.service import DIRECT, PATIENCE, THROUGH, Answer, Broken, Service

MOMENTS = {Fault.DIES_BEFORE: BEFORE, Fault.DIES_DURING: DURING, Fault.DIES_AFTER: AFTER}

UNREACHED = frozenset({"engine_unavailable", "deadline_exceeded"})

CODES: dict[Fault, frozenset[str]] = {
    Fault.DOWN: frozenset({"engine_unavailable"}),
    Fault.KILLED: UNREACHED | {"ok"},
    Fault.CUT: frozenset({"engine_unavailable", "ok"}),
    Fault.FROZEN: UNREACHED,
    Fault.FREEZES: UNREACHED,
    Fault.READ_ONLY: frozenset({"ok", "precondition", "engine_unavailable", "deadline_exceeded"}),
    Fault.DISK_FULL: frozenset({"ok", "conflict", "engine_unavailable", "deadline_exceeded"}),
    Fault.REVOKED: frozenset({"privilege_missing"}),
    Fault.REVOKED_MIDWAY: UNREACHED | {"ok", "privilege_missing"},
    Fault.STATE_FULL: frozenset({"state_unavailable"}),
}
"""What may be answered while a fault lasts. A read takes no notice of a full state or a read-only engine."""


class Ordeal:
    """A place, a dbvalet before it, and the disk of the engine, for one scenario after another."""

    def __init__(self, place: Place, service: Service, disk: Disk | None, folder: Path) -> None:
        self.place = place
        self.service = service
        self.disk = disk
        self.folder = folder

    def undergo(self, scenario: Scenario) -> None:
        """Let the fault happen.

        Raises: Broken, AssertionError
        """
        place, action, fault = self.place, scenario.pair.action, scenario.fault
        if {Fault.DISK_FULL: self.disk, Fault.STATE_FULL: self.service.disk}.get(fault, True) is None:
            pytest.skip("only root can mount a small file system")
        kept = place.kept()
        with place.case(action) as case:
            if fault in MOMENTS:
                assert isinstance(case, Case)
                folder = self.folder / str(scenario)
                folder.mkdir(parents=True)
                killed_and_asked_again(case, MOMENTS[fault], place.url, folder, settle=place.settle)
            elif isinstance(case, Case):
                self._change(case, fault)
            else:
                self._look(case, fault)
        if place.kept() != kept:
            raise Broken("lost", f"{place.kept()} is not {kept}")
        # Of both ways to the deployment.
        most = 2 * place.most_sessions
        self._eventually("leaked", lambda: place.sessions() <= most, f"more than {most} sessions stay")
        self._eventually("stuck", lambda: not self.service.open_work(), "work without an end")

    def _look(self, case: Look, fault: Fault) -> None:
        service = self.service
        with self._suffered(case, fault) as of:
            answer = service.ask(case.action, of=of)
            self._expect(answer, fault, is_read=True)
            if answer.code == "ok" and not case.shows(answer.result):
                raise Broken("said done, is not", f"{answer.body!r}")
        case.prepare()
        self._recovered(case, DIRECT)
        self._recovered(case, THROUGH)

    def _recovered(self, case: Look, of: str) -> None:
        """See a read go well, both where the fault was and beside it."""
        again = self.service.ask_until_final(lambda: self.service.ask(case.action, of=of))
        if again.code != "ok":
            raise Broken("no recovery", f"{again.body!r}")
        if not case.shows(again.result):
            raise Broken("said done, is not", f"{again.body!r}")

    def _change(self, case: Case, fault: Fault) -> None:
        service, key = self.service, f"key-{secrets.token_hex(8)}"
        assert not case.is_done()
        with self._suffered(case, fault) as of:
            first = service.ask(case.action, case.params, key=key, of=of)
        self._expect(first, fault, is_read=False)
        self.place.settle()
        if fault is Fault.DOWN and not case.dies_with_the_server:
            case.prepare()  # what a server forgets when it is killed was forgotten before it was asked
        was_done = case.is_done() and fault is not Fault.DOWN
        if first.code == "ok" and not was_done:
            raise Broken("said done, is not", f"{first.body!r}")
        if fault is Fault.STATE_FULL and was_done:
            raise Broken("done twice", "it was done and is nowhere written down")
        if was_done:
            case.meanwhile()
        final = service.ask_until_final(lambda: service.ask(case.action, case.params, key=key, of=of))
        judge(case, first, final, was_done=was_done)
        again = service.ask(case.action, case.params, key=key, of=of)
        if (again.status, again.body) != (final.status, final.body):
            raise Broken("done twice", f"{again.body!r} after {final.body!r}")
        if was_done:
            final = shown_again(
                case,
                final,
                lambda: service.ask_until_final(lambda: service.ask(case.action, case.params, key=key, of=of)),
            )
        # Nothing of what failed stands in the way of the next request.
        case.prepare()
        assert not case.is_done()
        anew = f"{key}-anew"
        fresh = service.ask_until_final(lambda: service.ask(case.action, case.params, key=anew, of=of))
        if fresh.code != "ok":
            raise Broken("no recovery", f"{fresh.body!r}")
        if not case.is_done():
            raise Broken("said done, is not", f"{fresh.body!r}")
        if final.code == "ok" and final.body != fresh.body:
            raise Broken("odd", f"{final.body!r}, where {fresh.body!r} is what it gives")

    def _expect(self, answer: Answer, fault: Fault, *, is_read: bool) -> None:
        codes = frozenset({"ok"}) if is_read and fault is Fault.STATE_FULL else CODES[fault]
        if answer.code not in codes:
            raise Broken("odd", f"{answer.status} {answer.body!r} is none of {sorted(codes)}")

    @contextmanager
    def _suffered(self, case: Case | Look, fault: Fault) -> Iterator[str]:
        """Let a fault happen to what the block asks for; gives the deployment to be asked."""
        place, action = self.place, case.action
        match fault:
            case Fault.DOWN:
                place.live.kill()
                try:
                    yield DIRECT
                finally:
                    place.live.start()
            case Fault.KILLED:
                trap = place.trap(action, then=place.live.kill)
                try:
                    yield THROUGH
                finally:
                    if trap.sprung.wait(5):
                        place.live.start()
                self._happened(trap)
            case Fault.CUT:
                trap = place.trap(action, loses_answer=True)
                yield THROUGH
                self._happened(trap)
            case Fault.FROZEN:
                self._ask_before()
                with place.live.paused():
                    yield DIRECT
            case Fault.FREEZES:
                with place.frozen_midway(action) as trap:
                    yield THROUGH
                self._happened(trap)
            case Fault.READ_ONLY:
                self._ask_before()
                with place.read_only():
                    yield DIRECT
            case Fault.DISK_FULL:
                assert self.disk is not None
                self._ask_before()
                with self.disk.full():
                    yield DIRECT
                place.bring_back()
            case Fault.REVOKED:
                self._rehearse(case)
                with place.revoked(action):
                    yield DIRECT
            case Fault.REVOKED_MIDWAY:
                with ExitStack() as until_granted:
                    taken = place.revoked(action)
                    trap = place.trap(action, then=lambda: until_granted.enter_context(taken))
                    yield THROUGH
                self._happened(trap)
            case Fault.STATE_FULL:
                assert self.service.disk is not None
                trap = place.trap(action)
                self.service.use_up_the_log()
                with self.service.disk.full():
                    yield THROUGH
                if isinstance(case, Case) and trap.sprung.is_set():
                    raise Broken("done twice", "the engine was touched before the state")
                place.proxy.forget()
            case _:
                raise AssertionError(fault)

    def _happened(self, trap: Trap) -> None:
        assert trap.sprung.is_set(), f"no request held {trap.statement!r}"

    def _ask_before(self) -> None:
        """Make sure that dbvalet has a session that is open."""
        read = next(each for each in self.place.cases if each.startswith(("list-", "pg-list")))
        assert self.service.ask(read).code == "ok"

    def _rehearse(self, case: Case | Look) -> None:
        """See the action go well beforehand, without doing it."""
        if isinstance(case, Case):
            assert self.service.ask(case.action, case.params, dry_run=True).code == "ok"
        else:
            assert self.service.ask(case.action).code == "ok"

    def _eventually(self, kind: str, condition: Callable[[], bool], text: str) -> None:
        ends_at = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > ends_at:
                raise Broken(kind, f"after {PATIENCE:g} s {text}")
            time.sleep(0.05)
