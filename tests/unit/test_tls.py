"""TLS and mutual TLS on real sockets: who is let in, which files are refused at the start, files that are replaced."""

import asyncio
import io
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from typer.testing import CliRunner, Result
from websockets.sync.client import connect

from agent import certificates, healthcheck
from agent.certificates import Certificates
from agent.commands.root import app
from agent.errors import AgentError, SettingsError
from agent.log import make_log
from agent.settings_tls import TlsSettings
from tests.fakes.service import TOKENS, listening, running
from tests.unit.running import ACME, TOKEN, Running, configuration, run, serving

SECONDS = 10.0
"""Within which a replaced file is taken, several looks long."""

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclass
class Files:
    """The files of a dbvalet, in a folder of its own."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        return self.folder / "tls.key"

    @property
    def client_ca(self) -> Path:
        return self.folder / "clients.pem"

    def put(self, file: Path, text: bytes) -> None:
        """Put a file in place as certbot and Kubernetes do: it is whole at every moment."""
        beside = file.with_suffix(".new")
        beside.write_bytes(text)
        beside.chmod(0o600)
        beside.replace(file)

    def put_pair(self, issued: trustme.LeafCert) -> None:
        self.put(self.certificate, chain(issued))
        self.put(self.key, issued.private_key_pem.bytes())

    def section(self, *, mutual: bool = False) -> dict[str, str]:
        whole = {"certificate": str(self.certificate), "key": str(self.key)}
        return {**whole, "client_ca": str(self.client_ca)} if mutual else whole


def chain(issued: trustme.LeafCert) -> bytes:
    return b"".join(each.bytes() for each in issued.cert_chain_pems)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Whom clients trust."""
    return trustme.CA()


@pytest.fixture(scope="module")
def of_clients() -> trustme.CA:
    """Whom dbvalet trusts."""
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA, of_clients: trustme.CA) -> Files:
    folder = tmp_path / "tls"
    folder.mkdir()
    files = Files(folder)
    files.put_pair(authority.issue_cert("127.0.0.1"))
    files.put(files.client_ca, of_clients.cert_pem.bytes())
    return files


LOOKS_OFTEN = "from agent import certificates, cli; certificates.LOOK_SECONDS = 0.2; cli.main()"


@contextmanager
def serving_tls(files: Files, *, mutual: bool = False) -> Iterator[tuple[Running, str]]:
    """Serve, and look for new files every moment; gives the process and its URL."""
    config = configuration(files.folder, ACME, tls=files.section(mutual=mutual))
    with serving(config, program=[sys.executable, "-c", LOOKS_OFTEN]) as running_process:
        assert running_process.lines[-1]["scheme"] == "https"
        yield running_process, f"https://{running_process.lines[-1]['address']}"


def client(
    authority: trustme.CA, shown: trustme.LeafCert | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    # Not the default one: to read the authorities of the system takes longer than to ask.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def status(url: str, context: ssl.SSLContext) -> int:
    """Ask once, on a connection of its own.

    Raises: httpx.TransportError
    """
    with httpx.Client(verify=context, trust_env=False) as once:
        return once.get(f"{url}/livez").status_code


def serial(url: str, context: ssl.SSLContext) -> str:
    """Give the serial number of the certificate that is shown."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        shown = tls.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.1)


def logged(process: Running, event: str) -> dict[str, Any]:
    """Read the log until an event; a test that waits for ever is ended by its time limit."""
    assert process.process.stdout is not None
    for line in process.process.stdout:
        entry = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"it ended without {event}")


def test_https_is_answered_and_plain_http_is_not(files: Files, authority: trustme.CA) -> None:
    with serving_tls(files) as (_, url):
        assert status(url, client(authority)) == 200
        with pytest.raises(httpx.TransportError), httpx.Client(trust_env=False) as plain:
            plain.get(f"{url.replace('https', 'http')}/livez")
        # A client that does not know the authority does not go on, and dbvalet answers the next one.
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            status(url, ssl.create_default_context())
        assert status(url, client(authority)) == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_2_and_later_are_spoken_and_1_1_is_refused_by_the_server(files: Files, authority: trustme.CA) -> None:
    with serving_tls(files) as (_, url):
        for version in VERSIONS:
            assert status(url, client(authority, version=version)) == 200
        old = client(authority)
        # At its usual level of security the client's OpenSSL would not even ask.
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError, match=r"UNEXPECTED_EOF|ALERT_PROTOCOL_VERSION"):
            status(url, old)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda each: each.name)
def test_with_a_client_ca_only_its_clients_are_let_in(
    files: Files, authority: trustme.CA, of_clients: trustme.CA, version: ssl.TLSVersion
) -> None:
    foreign = trustme.CA().issue_cert("ops@example.com")
    with serving_tls(files, mutual=True) as (_, url):
        for shown in (None, foreign, authority.issue_cert("ops@example.com")):
            with pytest.raises(httpx.TransportError):
                status(url, client(authority, shown, version))
        assert status(url, client(authority, of_clients.issue_cert("ops@example.com"), version)) == 200


def test_a_client_certificate_does_not_stand_for_a_token(
    files: Files, authority: trustme.CA, of_clients: trustme.CA
) -> None:
    context = client(authority, of_clients.issue_cert("ops@example.com"))
    with serving_tls(files, mutual=True) as (_, url), httpx.Client(verify=context, trust_env=False) as asked:
        assert asked.get(f"{url}/api/databases").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert asked.get(f"{url}/api/databases", headers=headers).status_code == 200


def test_a_replaced_certificate_is_taken_while_connections_stay_and_none_is_refused(
    files: Files, authority: trustme.CA
) -> None:
    context = client(authority)
    with serving_tls(files) as (process, url), httpx.Client(verify=context, trust_env=False) as kept:
        assert kept.get(f"{url}/livez").status_code == 200
        before = serial(url, context)
        files.put_pair(authority.issue_cert("127.0.0.1"))
        until(lambda: status(url, context) == 200 and serial(url, context) != before)
        # The same connection as at first: a pool of one, which was never closed.
        assert kept.get(f"{url}/livez").status_code == 200
        assert process.process.poll() is None
        assert len(logged(process, "tls_files_taken")["sha256"]) == 64


def test_a_new_pair_that_does_not_fit_is_logged_once_and_the_old_one_holds(files: Files, authority: trustme.CA) -> None:
    context = client(authority)
    new = authority.issue_cert("127.0.0.1")
    with serving_tls(files) as (process, url):
        before = serial(url, context)
        # Half of the way: a key that is not there yet.
        files.put(files.certificate, chain(new))
        refusal = logged(process, "tls_files_not_taken")
        assert (refusal["level"], refusal["reason"]) == (
            "error",
            "tls.key: is not the key of the certificate in tls.certificate",
        )
        assert serial(url, context) == before
        files.put(files.key, new.private_key_pem.bytes())
        until(lambda: serial(url, context) != before)


def test_an_authority_of_clients_can_be_replaced(files: Files, authority: trustme.CA, of_clients: trustme.CA) -> None:
    next_one = trustme.CA()
    old = client(authority, of_clients.issue_cert("ops@example.com"))
    new = client(authority, next_one.issue_cert("ops@example.com"))
    with serving_tls(files, mutual=True) as (process, url):
        assert status(url, old) == 200
        files.put(files.client_ca, next_one.cert_pem.bytes())
        logged(process, "tls_files_taken")
        assert status(url, new) == 200
        with pytest.raises(httpx.TransportError):
            status(url, old)


def test_a_session_of_before_is_no_way_around_an_authority_that_is_gone(
    files: Files, authority: trustme.CA, of_clients: trustme.CA
) -> None:
    context = client(authority, of_clients.issue_cert("ops@example.com"), ssl.TLSVersion.TLSv1_2)
    other = trustme.CA().cert_pem.bytes()
    with serving_tls(files, mutual=True) as (process, url):
        session, taken_up = asked_with(url, context, None)
        assert not taken_up
        assert asked_with(url, context, session)[1], "or this shows nothing: sessions are not taken up at all"
        files.put(files.client_ca, of_clients.cert_pem.bytes() + other)
        logged(process, "tls_files_taken")
        assert asked_with(url, context, session)[1], "one more authority disturbs nobody"
        files.put(files.client_ca, other)
        logged(process, "tls_files_taken")
        with pytest.raises(OSError, match="SSL"):
            asked_with(url, context, session)
        files.put(files.client_ca, of_clients.cert_pem.bytes())
        logged(process, "tls_files_taken")
        assert not asked_with(url, context, None)[1], "a new session is begun"


def asked_with(
    url: str, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """Ask, going on with a session where one is given; gives the session and whether it went on."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain, server_hostname=host, session=session) as tls,
    ):
        tls.sendall(b"GET /livez HTTP/1.1\r\nHost: dbvalet\r\nConnection: close\r\n\r\n")
        assert tls.recv(12) == b"HTTP/1.1 200"
        return tls.session, tls.session_reused


def encrypted(key: bytes) -> bytes:
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase"))


def break_files(files: Files, how: str) -> None:
    match how.split():
        case ["no", name]:
            getattr(files, name).unlink()
        case ["odd", name]:
            files.put(getattr(files, name), b"\xffno PEM")
        case ["other", "key"]:
            files.put(files.key, trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes())
        case ["locked", "key"]:
            files.put(files.key, encrypted(files.key.read_bytes()))
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("no certificate", r"tls\.certificate: the file /\S+/tls\.crt cannot be read: No such file or directory"),
        ("no key", r"tls\.key: the file /\S+/tls\.key cannot be read: No such file or directory"),
        ("no client_ca", r"tls\.client_ca: the file /\S+/clients\.pem cannot be read: No such file or directory"),
        ("odd certificate", r"tls\.certificate: is no certificate in PEM"),
        ("odd key", r"tls\.key: is no private key in PEM"),
        ("odd client_ca", r"tls\.client_ca: is no certificate in PEM"),
        ("other key", r"tls\.key: is not the key of the certificate in tls\.certificate"),
        ("locked key", r"tls\.key: has a passphrase, which nobody is there to give"),
    ],
)
def test_a_file_that_is_not_usable_names_its_key(files: Files, how: str, line: str) -> None:
    break_files(files, how)
    with pytest.raises(SettingsError, match=f"^{line}$"):
        Certificates(TlsSettings(**{name: Path(path) for name, path in files.section(mutual=True).items()}), make_log())


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_such_a_file_ends_the_start_with_one_line_and_code_2(files: Files, arguments: tuple[str, ...]) -> None:
    break_files(files, "other key")
    ended = run("serve", "--config", str(configuration(files.folder, ACME, tls=files.section())), *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "dbvalet: tls.key: is not the key of the certificate in tls.certificate\n"


def test_a_key_is_asked_for_in_the_section(tmp_path: Path) -> None:
    ended = run("serve", "--config", str(configuration(tmp_path, ACME, tls={"certificate": "x"})))
    assert (ended.returncode, ended.stderr) == (2, "dbvalet: tls.key: is required\n")


def test_the_section_may_stand_in_a_variable(files: Files, authority: trustme.CA) -> None:
    variables = {"DBVALET_TLS": json.dumps(files.section())}
    with serving(configuration(files.folder, ACME), more=variables) as process:
        assert status(f"https://{process.lines[-1]['address']}", client(authority)) == 200


def test_with_tls_it_listens_anywhere(files: Files, authority: trustme.CA) -> None:
    with serving(configuration(files.folder, ACME, listen="0.0.0.0:0", tls=files.section())) as process:
        address = process.lines[-1]["address"].replace("0.0.0.0", "127.0.0.1")
        assert status(f"https://{address}", client(authority)) == 200


def test_a_key_that_others_may_read_is_a_warning(files: Files) -> None:
    files.key.chmod(0o644)
    log = io.BytesIO()
    Certificates(TlsSettings(certificate=files.certificate, key=files.key), make_log(stream=log))
    warned = json.loads(log.getvalue())
    assert (warned["event"], warned["level"]) == ("tls_key_readable_by_others", "warning")
    assert warned["file"] == str(files.key)


def test_nothing_of_the_key_is_in_the_log(files: Files) -> None:
    log = io.BytesIO()
    looked = Certificates(TlsSettings(certificate=files.certificate, key=files.key), make_log(stream=log))
    secret = files.key.read_text().splitlines()[1]
    files.put(files.certificate, files.key.read_bytes())
    looked.look()
    looked.look()
    assert log.getvalue().count(b"\n") == 1, "the same problem is told once"
    assert secret.encode() not in log.getvalue()


@pytest.fixture
def private(tmp_path: Path, authority: trustme.CA, of_clients: trustme.CA) -> dict[str, str]:
    """What a shell sets to reach a dbvalet with a private authority and mutual TLS."""
    own = of_clients.issue_cert("ops@example.com")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    return {"DBVALET_CA_FILE": str(tmp_path / "ca.pem"), "DBVALET_CLIENT_CERTIFICATE": str(tmp_path / "own.pem")}


def healthy(url: str, **variables: str) -> str | None:
    return healthcheck.problem_of({"DBVALET_LISTEN": url.removeprefix("https://"), **variables})


def test_the_health_check_speaks_tls(files: Files, authority: trustme.CA, private: dict[str, str]) -> None:
    foreign = files.folder / "foreign.pem"
    trustme.CA().cert_pem.write_to_path(foreign)
    with serving_tls(files) as (_, url):
        assert healthy(url, DBVALET_CA_FILE=private["DBVALET_CA_FILE"]) is None
        assert healthy(url, DBVALET_TLS=json.dumps(files.section())) is None
        assert "CERTIFICATE_VERIFY_FAILED" in (healthy(url, DBVALET_CA_FILE=str(foreign)) or "")
        assert (healthy(url) or "").endswith("if it speaks TLS, set DBVALET_CA_FILE")
        variables = {"DBVALET_LISTEN": url.removeprefix("https://")}
        asked = run("healthcheck", "--ca", private["DBVALET_CA_FILE"], more=variables)
        assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")
        refused = run("healthcheck", "--ca", str(foreign), more=variables)
        assert refused.returncode == 1
        assert refused.stderr.startswith("dbvalet does not answer at 127.0.0.1:")


def test_the_health_check_shows_a_certificate_where_one_is_demanded(files: Files, private: dict[str, str]) -> None:
    with serving_tls(files, mutual=True) as (_, url):
        assert healthy(url, **private) is None
        assert healthy(url, DBVALET_CA_FILE=private["DBVALET_CA_FILE"]) is not None


def call(url: str, *words: str, **variables: str) -> Result:
    env: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("DBVALET_"))
    return CliRunner().invoke(
        app, ["call", "ad-acme", *words, "--url", url], env={**env, "DBVALET_TOKEN": TOKEN, **variables}
    )


def test_call_reaches_it_with_the_authority_and_the_certificate(files: Files, private: dict[str, str]) -> None:
    with serving_tls(files, mutual=True) as (_, url):
        done = call(url, **private)
        assert (done.exit_code, "acme-wait" in done.output) == (0, True)
        own = {"DBVALET_CLIENT_CERTIFICATE": private["DBVALET_CLIENT_CERTIFICATE"]}
        assert call(url, "--ca", private["DBVALET_CA_FILE"], **own).exit_code == 0
        unknown = call(url, **own).exception
        assert isinstance(unknown, AgentError)
        assert "CERTIFICATE_VERIFY_FAILED" in unknown.message
        assert isinstance(call(url, "--ca", private["DBVALET_CA_FILE"]).exception, AgentError)


@pytest.mark.parametrize(
    ("name", "line"),
    [("DBVALET_CA_FILE", "--ca"), ("DBVALET_CLIENT_CERTIFICATE", "DBVALET_CLIENT_CERTIFICATE")],
)
def test_a_file_that_call_cannot_use_is_a_mistake(
    tmp_path: Path, private: dict[str, str], name: str, line: str
) -> None:
    odd = tmp_path / "odd.pem"
    for file, reason in ((tmp_path / "none.pem", "No such file"), (odd, "in PEM")):
        odd.write_text("no PEM")
        refused = call("https://127.0.0.1:1", **{**private, name: str(file)}).exception
        assert isinstance(refused, SettingsError)
        assert refused.key == line
        assert reason in refused.message


async def test_a_bug_of_one_look_does_not_end_the_looking(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    log, looks = io.BytesIO(), list[int]()
    looked = Certificates(TlsSettings(certificate=files.certificate, key=files.key), make_log(stream=log))

    def bug() -> None:
        looks.append(1)
        raise RuntimeError("planted-bug")

    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(looked, "look", bug)
    looked.start()
    async with asyncio.timeout(10):
        while len(looks) < 2:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    looked.close()
    assert b"planted-bug" in log.getvalue()


async def test_backups_are_made_and_downloaded_over_tls(
    files: Files, private: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TlsSettings(certificate=files.certificate, key=files.key, client_ca=files.client_ca)
    context = Certificates(settings, make_log(stream=io.BytesIO())).context
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet, listening(valet, context) as port:
        shell = {**private, "DBVALET_TOKEN": TOKENS["admin"], "DBVALET_URL": f"https://127.0.0.1:{port}"}
        for name, value in shell.items():
            monkeypatch.setenv(name, value)
        target = tmp_path / "archive.tar.gz"
        for words in (["create", "ad-one"], ["download", "ad-one", "latest", "--output", str(target)]):
            done = await asyncio.to_thread(CliRunner().invoke, app, ["backups", *words])
            assert done.exit_code == 0, (done.output, done.exception)
        assert target.stat().st_size > 0
        monkeypatch.delenv("DBVALET_CA_FILE")
        listed = await asyncio.to_thread(CliRunner().invoke, app, ["backups", "list", "ad-one"])
        assert isinstance(listed.exception, AgentError)
        known = ["backups", "list", "ad-one", "--ca", private["DBVALET_CA_FILE"]]
        assert (await asyncio.to_thread(CliRunner().invoke, app, known)).exit_code == 0


def test_the_link_to_a_log_is_one_of_tls_and_is_followed_over_it(
    files: Files, authority: trustme.CA, of_clients: trustme.CA, tmp_path: Path
) -> None:
    file = tmp_path / "engine.log"
    file.write_text("2026-01-31 08:00:00 UTC before\n")
    context = client(authority, of_clients.issue_cert("a-client"))
    config = configuration(files.folder, {**ACME, "log_file": str(file)}, tls=files.section(mutual=True))
    with serving(config) as process, httpx.Client(verify=context, trust_env=False) as asking:
        base = f"https://{process.lines[-1]['address']}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        link: str = asking.get(f"{base}/api/databases/ad-acme/logs", headers=headers).json()["url"]
        assert link.startswith(f"{base}/api/logs/")
        assert asking.get(link).text.endswith("[acme] before\n")
        with connect(link.replace("https://", "wss://") + "&stream=true", ssl=context) as follower:
            with file.open("a") as log:
                log.write("2026-01-31 08:00:01 UTC after\n")
            assert json.loads(follower.recv(timeout=10))["log"].endswith("[acme] after")
