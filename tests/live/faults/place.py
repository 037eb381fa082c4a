"""A live server, dbvalet's account on it, and what an administrator sees and does there through the engine's driver."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Self

from tests.live.faults.case import Case, Look, until
from tests.live.faults.proxy import Proxy, Trap
from tests.live.servers import LiveServer

PASSWORD = "pass-of-the-valet-0123"

Made = AbstractContextManager[Case | Look]


class Place(ABC):
    """A deployment that is made for it, and taken away in the end."""

    cases: ClassVar[Mapping[str, Callable[[Any], Made]]]
    """How each action of the engine is set up."""
    statements: ClassVar[Mapping[str, bytes]]
    """What stands in the request that carries out each action, on its way to the server."""
    after: ClassVar[int] = 0
    """How many requests later the statement is executed."""
    most_sessions: ClassVar[int]
    """How many sessions dbvalet may hold on the server for one database."""
    options: ClassVar[dict[str, str]] = {}
    """Of the URL."""

    def __init__(self, live: LiveServer) -> None:
        self.live = live
        mark = secrets.token_hex(3)
        self.account, self.database, self.other, self.neighbour = (
            f"{name}_{mark}" for name in ("valet", "own", "other", "neighbour")
        )
        self.proxy = Proxy(live.host, live.port)

    def __enter__(self) -> Self:
        self.proxy.__enter__()
        self.make()
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__(*_)
        self.take_away()

    @property
    def url(self) -> str:
        """The deployment as dbvalet's account sees it."""
        return self.live.url(self.account, PASSWORD, self.database, **self.options)

    @property
    def url_through(self) -> str:
        """The same by way of the proxy."""
        return self.url.replace(f"@{self.live.host}:{self.live.port}/", f"@127.0.0.1:{self.proxy.port}/")

    def case(self, action: str) -> Made:
        """Set up what an action is about."""
        return type(self).cases[action](self)

    def trap(self, action: str, **what: Any) -> Trap:
        """Let something happen when the statement of an action passes the proxy."""
        return self.proxy.set(Trap(self.statements[action], self.after, **what))

    def settle(self) -> None:
        """Wait until the server is at work for dbvalet no more, whoever waits for it."""
        until(lambda: self.proxy.abandoned == 0 and self.at_work() == 0, 60)

    def bring_back(self) -> None:
        """Start the server if it has ended."""
        container = self.live.container.get_wrapped_container()
        container.reload()
        if container.status == "running":
            self.live.wait_until_it_answers()
        else:
            self.live.start()

    @abstractmethod
    def make(self) -> None:
        """Make the account by the grants script, the deployment's logical database, and one beside it with rows."""

    @abstractmethod
    def take_away(self) -> None: ...

    @abstractmethod
    def sessions(self) -> int:
        """Count the sessions that dbvalet's account has on the server."""

    @abstractmethod
    def at_work(self) -> int:
        """Count those that run something."""

    @abstractmethod
    def kept(self) -> Any:
        """Give what stands in the logical databases that no action is aimed at, and which there are."""

    @abstractmethod
    def read_only(self) -> AbstractContextManager[None]:
        """Let the server take no changes."""

    @abstractmethod
    def revoked(self, action: str) -> AbstractContextManager[None]:
        """Take away what an action needs, from sessions that are open too."""

    @contextmanager
    def frozen_midway(self, action: str) -> Iterator[Trap]:
        """Let the server freeze just before the statement of an action arrives."""
        trap = self.trap(action, before=self.live.pause)
        try:
            yield trap
        finally:
            if trap.sprung.is_set():
                self.live.unpause()
