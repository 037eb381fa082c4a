"""A dump in PostgreSQL's custom format: its table of contents, and the SQL that pg_restore makes of its entries."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.backup import BLOCK, LAST_WORDS, run_tool
from engines.errors import BackupDamaged, BackupFailed
from engines.postgresql.programs import Programs, offline
from engines.threads import in_own_thread

ENTRY = re.compile(r"(\d+); (\d+) (\d+) (.*)")

# The catalogues whose rows entries describe; their numbers are fixed.
PROC, CLASS, REWRITE, NAMESPACE, EXTENSION, DEFAULT_ACL, EVENT_TRIGGER = 1255, 1259, 2618, 2615, 3079, 826, 3466

DATA = ("TABLE DATA ", "SEQUENCE SET ", "BLOBS ", "BLOB DATA ")

STATEMENT = re.compile(
    rb"""(?:[^;'"\\eE-]++ | [eE]'(?:[^'\\]++|\\.|'')*+' | [eE](?!')
         | '(?:[^']++|'')*+' | "(?:[^"]++|"")*+" | --[^\n]*+\n | -(?!-) | \\[^\n]*+\n)*+;""",
    re.VERBOSE | re.DOTALL,
)
"""A statement with what stands before it. Not for functions and rules: their bodies have semicolons of their own.

Lines with a backslash are for psql: \\restrict, in the dumps of 2025 and later.
"""

BEFORE_IT = re.compile(rb"(?:\s++|--[^\n]*+\n|\\[^\n]*+\n)*+")

END_OF_ROWS = b"\n\\.\n"

FIRST_ENTRY = re.compile(rb"^--\n-- (?:Data for )?Name: ", re.MULTILINE)

FOR_PSQL = re.compile(rb"\n\\unrestrict \w+\s*\Z")

ENCODING = re.compile(rb"^SET client_encoding = '(\w+)';$", re.MULTILINE)


class CutShort(BackupFailed):
    """What pg_restore wrote has no end."""


@dataclass(frozen=True)
class Entry:
    """A line of the table of contents."""

    number: int
    catalog: int
    """The catalogue of the object, 0 for what belongs to another entry: its rows, rights, comment."""
    oid: int
    text: str
    """Kind, schema (`-` for none), name and owner with spaces between, newlines in names as spaces."""

    @property
    def name(self) -> str:
        """The name of an extension or a schema, whose owner has none or stands after it."""
        return self.text.split(" ")[2]

    @property
    def is_data(self) -> bool:
        """Tell whether it fills what other entries made."""
        return self.catalog == 0 and self.text.startswith(DATA)

    @property
    def is_right(self) -> bool:
        """Tell whether it grants."""
        return self.catalog == DEFAULT_ACL or (self.catalog == 0 and self.text.startswith("ACL "))

    @property
    def is_plain(self) -> bool:
        """Tell whether its SQL can be taken apart into statements."""
        return self.catalog not in (PROC, REWRITE)


async def table_of_contents(programs: Programs, dump: Path) -> list[Entry]:
    """Read what a dump holds, in the order of restoring.

    Raises: BackupDamaged
    """
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        said = Path(folder, "list")
        try:
            await run_tool([programs.pg_restore, "--list", dump], environment=offline(), stdout=said)
        except BackupFailed as failed:
            raise BackupDamaged(f"The dump cannot be read. {failed.message}") from failed
        lines = (await in_own_thread(said.read_text, encoding="utf-8", errors="surrogateescape")).split("\n")
    return [Entry(int(e[1]), int(e[2]), int(e[3]), e[4]) for line in lines if (e := ENTRY.fullmatch(line))]


class Script:
    """SQL as pg_restore writes it, read as it comes."""

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._read = b""
        self._at = 0

    async def whole(self) -> bytes:
        """Give all of it, without the settings at its head."""
        while await self._more():
            pass
        first = FIRST_ENTRY.search(self._read)
        return FOR_PSQL.sub(b"\n", self._read[first.start() :]) if first else b""

    async def encoding(self) -> str:
        """Find the encoding that it is written in.

        Raises: CutShort
        """
        while not (found := ENCODING.search(self._read)):
            if not await self._more():
                raise CutShort("pg_restore wrote no SQL.")
        return found[1].decode()

    async def skip_settings(self) -> None:
        """Pass over the settings at its head: those of a newer pg_dump are unknown to an older server."""
        while not (first := FIRST_ENTRY.search(self._read)):
            if not await self._more():
                self._at = len(self._read)
                return
        self._at = first.start()

    async def statement(self) -> bytes | None:
        """Give the next statement without its comments; None at the end.

        Raises: CutShort, when it ends within one
        """
        while not (found := STATEMENT.match(self._read, self._at)):
            if not await self._more():
                rest = BEFORE_IT.sub(b"", self._read[self._at :] + b"\n", count=1)
                if rest.strip():
                    raise CutShort(f"pg_restore wrote half a statement: {rest[:100].decode(errors='replace')}")
                return None
        self._at = found.end()
        return BEFORE_IT.sub(b"", found[0], count=1)

    async def rows(self) -> AsyncIterator[bytes]:
        """Give the rows after a COPY, in blocks.

        Raises: CutShort, when they do not end
        """
        # `at` is the byte before those that were not given yet, at first the newline after the statement.
        while (end := self._read.find(END_OF_ROWS, self._at)) < 0:
            given = len(self._read) - len(END_OF_ROWS) + 1
            if given > self._at:
                yield self._read[self._at + 1 : given + 1]
                self._at = given
            if not await self._more():
                raise CutShort("pg_restore wrote rows without an end.")
        if end > self._at:
            yield self._read[self._at + 1 : end + 1]
        self._at = end + len(END_OF_ROWS)

    async def _more(self) -> bool:
        block = await anext(self._blocks, b"")
        self._read = self._read[self._at :] + block
        self._at = 0
        return bool(block)


@asynccontextmanager
async def sql_of(programs: Programs, dump: Path, entries: Iterable[Entry]) -> AsyncGenerator[Script]:
    """Let pg_restore write the SQL of some entries; at the end of the block all of it must have been read.

    Raises: BackupFailed, when pg_restore did not come to its end
    """
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        said = Path(folder, "said")
        chosen = _list_of(Path(folder, "chosen"), entries)
        with said.open("wb") as words:  # noqa: ASYNC230 - as in `_list_of`
            process = await asyncio.create_subprocess_exec(
                *(programs.pg_restore, f"--use-list={chosen}", "--file=-", dump),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=words,
                env=offline(),
                limit=BLOCK,
            )
        broken: BackupFailed | None = None
        try:
            yield Script(_blocks(process.stdout))
            await process.wait()
        except CutShort as short:
            broken = short
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()  # it writes to nobody but us
                # asyncio does not see the end of a process before that of what it wrote.
                async for _ in _blocks(process.stdout):
                    continue
                await process.wait()
        if process.returncode != 0:
            text = (await in_own_thread(said.read_bytes))[-LAST_WORDS:].decode(errors="replace").strip()
            raise BackupFailed(f"pg_restore ended with {process.returncode}: {text or 'it said nothing'}") from broken
        if broken:
            raise broken


def _list_of(chosen: Path, entries: Iterable[Entry]) -> Path:
    # In no thread: one goes on after a cancellation, and its file appears in the folder that is being removed.
    chosen.write_text("".join(f"{entry.number};\n" for entry in entries))
    return chosen


async def _blocks(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    while stream is not None and (block := await stream.read(BLOCK)):
        yield block
