"""Downloads of archives: whole or not there, and taken up again."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.commands import downloads
from agent.commands.downloads import DownloadFailed, fetch

ARCHIVE = bytes(range(256)) * 400


@dataclass
class Served:
    """A server at the edge of the client that may cut its answers off."""

    link: str = ""
    cut_after: list[int] = field(default_factory=list[int])
    """Bytes after which the first, the second … answer is cut off."""
    status: int = 206
    ranges: list[str | None] = field(default_factory=list[str | None])


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["range"]
            served.ranges.append(wanted)
            rest = ARCHIVE[int(wanted.removeprefix("bytes=").rstrip("-")) :]
            self.send_response(served.status)
            self.send_header("content-length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: served.cut_after.pop(0)] if served.cut_after else rest)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.link = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def get(served: Served, target: Path) -> None:
    fetch(served.link, target, size=len(ARCHIVE), sha256_hex=sha256(ARCHIVE).hexdigest())


def test_a_proxy_of_the_environment_is_asked_for_another_machine_only(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", served.link)
    monkeypatch.delenv("NO_PROXY", raising=False)
    served.link = "http://dbvalet.example/"
    get(served, tmp_path / "a.tar.gz")
    asked = len(served.ranges)
    served.link = "http://127.0.0.2:1/"
    with pytest.raises(DownloadFailed):
        get(served, tmp_path / "b.tar.gz")
    assert (asked, len(served.ranges)) == (1, 1)


def test_it_is_in_place_once_it_is_whole(served: Served, tmp_path: Path) -> None:
    get(served, tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE
    assert (tmp_path / "a.tar.gz").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a.tar.gz"]


def test_what_was_cut_off_is_taken_up_where_it_ended(served: Served, tmp_path: Path) -> None:
    served.cut_after = [1000, 500]
    get(served, tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE
    assert served.ranges == ["bytes=0-", "bytes=1000-", "bytes=1500-"]


def test_cut_off_too_often_it_is_not_in_place_and_the_next_try_goes_on(served: Served, tmp_path: Path) -> None:
    served.cut_after = [10] * downloads.TRIES
    with pytest.raises(DownloadFailed, match="the same command takes it up again"):
        get(served, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()
    get(served, tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE
    assert served.ranges[-1] == f"bytes={10 * downloads.TRIES}-"


def test_another_archive_is_not_taken_for_it(served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz.part").write_bytes(b"of another backup")
    with pytest.raises(DownloadFailed, match="its checksum differs"):
        get(served, tmp_path / "a.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told(served: Served, tmp_path: Path) -> None:
    served.status = 403
    with pytest.raises(DownloadFailed, match="403"):
        get(served, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()


def test_a_folder_that_is_not_there_is_named(served: Served, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="nowhere"):
        get(served, tmp_path / "nowhere" / "a.tar.gz")
