"""Downloads an archive by its link: beside its place at first, and in place once it is whole."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.trust import goes_through_proxies
from agent.errors import AgentError

if TYPE_CHECKING:
    import ssl

BLOCK = 1024 * 1024

TRIES = 3

SILENCE_SECONDS = 60.0


class DownloadFailed(AgentError):
    """The archive could not be downloaded."""

    code = "download_failed"


def fetch(link: str, target: Path, *, size: int, sha256_hex: str, verify: ssl.SSLContext | bool = True) -> None:
    """Download into `target`; what an earlier download left half done is taken up again. `verify` as httpx takes it.

    Raises: DownloadFailed
    """
    part = target.with_name(f"{target.name}.part")
    try:
        _fill(link, part, size, verify)
        with part.open("rb") as file:
            digest = sha256()
            while block := file.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() != sha256_hex:
            part.unlink()
            raise DownloadFailed("What was downloaded is not what dbvalet made: its checksum differs. It was removed.")
        part.replace(target)
    except OSError as problem:
        raise DownloadFailed(f"{problem.filename or part} cannot be written: {problem.strerror}") from problem


def _fill(link: str, part: Path, size: int, verify: ssl.SSLContext | bool) -> None:
    import httpx

    problem: Exception | None = None
    proxies = goes_through_proxies(httpx.URL(link))
    with httpx.Client(verify=verify, timeout=SILENCE_SECONDS, trust_env=proxies) as client, part.open("ab") as file:
        part.chmod(0o600)  # it holds all data
        for _ in range(TRIES):
            there = file.tell()
            if there > size:
                file.truncate(0)
                there = 0
            if there == size:
                return
            try:
                with client.stream("GET", link, headers={"Range": f"bytes={there}-"}) as answer:
                    if answer.status_code != 206:
                        raise DownloadFailed(f"The archive is not handed out: {answer.status_code}.")
                    for block in answer.iter_raw():  # as it comes: what is collected is lost with the connection
                        file.write(block)
            except httpx.TransportError as cut:
                problem = cut
    if part.stat().st_size != size:
        raise DownloadFailed(f"The download was cut off ({problem}); the same command takes it up again.")
