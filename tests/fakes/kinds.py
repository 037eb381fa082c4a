"""A kind of operation that waits, fails and recovers as a test tells it."""

from agent.operations.kind import Run
from agent.tasks import Task
from engines.action import Effect
from tests.fakes.driver import Gate


class FakeKind:
    """`ran`, `recovered` and `undone` list the ids of operations, in order; `cut` what ended those that recovered."""

    type = "fake"
    task = Task(name="do-fake", effect=Effect.WRITE)
    may_leave = True

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self.problem: BaseException | None = None
        self.recover_problem: BaseException | None = None
        self.ran: list[str] = []
        self.recovered: list[str] = []
        self.cut: list[str] = []
        self.undone: list[str] = []

    async def run(self, run: Run) -> list[str]:
        self.ran.append(run.operation.id)
        run.progress(40.7, "half-way")
        try:
            if self.gate is not None:
                await self.gate.passed()
        except BaseException:
            self.undone.append(run.operation.id)
            raise
        if self.problem is not None:
            raise self.problem
        return ["a note"]

    async def recover(self, run: Run) -> list[str]:
        self.recovered.append(run.operation.id)
        self.cut.append(run.cut)
        if self.recover_problem is not None:
            raise self.recover_problem
        return ["recovered"]
