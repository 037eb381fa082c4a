"""One restore at a time: a lock where pgBackRest runs, which one that nobody waits for any more still holds.

pgBackRest takes no lock for a restore. Where `docker exec` is the program, only its client ends when it is ended here,
and a dbvalet that is killed leaves what it has begun: it would write on into the files of a server that lives again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import PurePath

from engines.errors import RecoveryFailed, RecoveryRefused
from engines.postgresql.recovery.programs import Said, Way, ask, run

END_SECONDS = 60.0
"""How long an earlier restore may take to end once it is told to."""

KILL_SECONDS = 20.0
"""After so long it is killed: what it reads from may hang. A server cannot start half restored."""

LOOK_SECONDS = 0.5

HELD = 3

UNUSABLE = frozenset({2, 4, 126, 127})
"""Codes of the shell that has not begun the program; those of pgBackRest begin at 25."""

# The lock is the open file: it is held until the last process that inherits it has ended, whoever was its parent.
_LOCK = """
exec 9>>"$0" || exit 4
flock -n 9
case $? in 0) ;; 1) exit 3 ;; *) exit 4 ;; esac
"""

_RUN = _LOCK + 'echo "$$" >"$0"\nexec "$@"\n'

# A number that another process has by now is told by its arguments.
_END = r"""
read -r pid <"$0" || exit 0
case "$(tr '\0' ' ' <"/proc/$pid/cmdline")" in
*" $1 "*" restore "*) kill -s "$2" -- "-$pid" || kill -s "$2" "$pid" ;;
esac
"""


class Alone:
    """The lock of one stanza, by the program's own way to where it runs."""

    def __init__(self, program: Sequence[str], stanza: str) -> None:
        """`program` is how pgBackRest is called: what is before its own name leads to where it runs."""
        at = _place_of_name(program)
        self._way, self._program = [*program[:at]], [*program[at:]]
        self._stanza = f"--stanza={stanza}"
        name = hashlib.sha256("\0".join(program).encode()).hexdigest()[:12]
        self._file = f"/tmp/dbvalet-{stanza}-{name}.lock"  # noqa: S108 - of that machine or container, and none else

    async def restore(self, arguments: Sequence[str]) -> Said:
        """Run a restore once no other runs.

        Raises: RecoveryFailed, when an earlier one does not end; RecoveryRefused, when there can be no lock; OSError
        """
        said = await self._when_free(_RUN, [*self._program, self._stanza, *arguments])
        if said.code in UNUSABLE:
            raise RecoveryRefused(_unusable(said))
        return said

    async def make_sure(self) -> None:
        """End a restore that still runs.

        Raises: RecoveryFailed, when it does not end; OSError
        """
        await self._when_free(_LOCK, [])

    async def missing(self) -> str | None:
        """Tell what is in the way of a restore; None: nothing.

        Raises: OSError
        """
        said = await self._sh(_LOCK, [], ask)
        if said.code == HELD:
            return "An earlier restore of this stanza still runs where pgBackRest runs."
        return _unusable(said) if said.code != 0 else None

    async def _when_free(self, script: str, arguments: Sequence[str]) -> Said:
        began_at = time.monotonic()
        while (said := await self._sh(script, arguments)).code == HELD:
            passed = time.monotonic() - began_at
            if passed > END_SECONDS:
                raise RecoveryFailed(
                    f"An earlier restore still runs where pgBackRest runs, and did not end within {END_SECONDS:g} s:"
                    " end it, and do not start the server before."
                )
            await self._sh(_END, [self._stanza, "KILL" if passed > KILL_SECONDS else "TERM"])
            await asyncio.sleep(LOOK_SECONDS)
        return said

    async def _sh(self, script: str, arguments: Sequence[str], way: Way = run) -> Said:
        return await way([*self._way, "sh", "-c", script, self._file, *arguments])


def _place_of_name(program: Sequence[str]) -> int:
    """Find pgBackRest's own name: options may follow it, and a container before it may have one like it."""
    words = [at for at, word in enumerate(program) if not word.startswith("-")]
    names = [at for at in words if PurePath(program[at]).name.startswith("pgbackrest")]
    return max(names or words, default=0)


def _unusable(said: Said) -> str:
    return (
        "Two restores cannot be kept apart where pgBackRest runs: it takes sh, flock (util-linux or BusyBox) and a /tmp"
        f" that can be written, and pitr.program must begin with what leads there. {said.words}"
    )
