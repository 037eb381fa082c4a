"""TLS connections that do not begin, and those that end: on a dbvalet of its own, with few files."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import trustme

from tests.unit.running import ACME, TOKEN, Running, command, configuration, serving

FILES = 200
"""How many it may open: a hundred of its clients."""

AUTHORITY = trustme.CA()

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def serving_tls(folder: Path) -> Iterator[tuple[Running, str, tuple[str, int]]]:
    """Serve; gives the process, its URL and its address."""
    issued = AUTHORITY.issue_cert("127.0.0.1")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    few = ["sh", "-c", f'ulimit -n {FILES}; exec "$0" "$@"', *command()]
    config = configuration(folder, ACME, tls={"certificate": str(certificate), "key": str(key)})
    with serving(config, program=few) as process:
        host, _, port = process.lines[-1]["address"].rpartition(":")
        yield process, f"https://{host}:{port}", (host, int(port))


def client() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def test_silent_clients_take_no_more_than_their_files_and_keep_nobody_out(tmp_path: Path) -> None:
    with (
        serving_tls(tmp_path) as (process, url, address),
        httpx.Client(verify=client(), trust_env=False, headers=HEADERS) as kept,
        ExitStack() as silent,
    ):
        assert kept.get(f"{url}/api/databases").status_code == 200
        for _ in range(2 * FILES):
            silent.enter_context(socket.create_connection(address, 5))
        with httpx.Client(verify=client(), trust_env=False) as new:
            assert new.get(f"{url}/livez").status_code == 200
        assert len(list(Path(f"/proc/{process.process.pid}/fd").iterdir())) < FILES * 3 / 4
        # The first one to be audited, for which files are opened.
        changed = kept.post(f"{url}/api/databases/ad-acme/backups", json={})
        assert changed.status_code < 500, changed.text


def test_an_idle_client_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    with (
        serving_tls(tmp_path) as (process, url, address),
        httpx.Client(verify=client(), trust_env=False) as idle,
        socket.create_connection(address, 5),
    ):
        assert idle.get(f"{url}/livez").status_code == 200
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(timeout=15) == 0
