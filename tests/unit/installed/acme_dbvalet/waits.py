"""The acme engine's only action of its own."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from engines.action import Effect, Params, action

if TYPE_CHECKING:
    from acme_dbvalet.driver import AcmeServer


class Wait(Params):
    """How long."""

    seconds: Annotated[float, Field(ge=0, description="how long to wait")]


@action(
    "acme-wait",
    effect=Effect.WRITE,
    privileges=("acme-right",),
    example_params={"seconds": 0.5},
    example_result="waited",
)
async def acme_wait(server: "AcmeServer", params: Wait) -> str:
    """Wait, then say so."""
    server.waiting += 1
    await asyncio.sleep(params.seconds)
    server.waiting -= 1
    return "waited"
