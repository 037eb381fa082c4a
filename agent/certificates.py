"""The TLS of `dbvalet serve`: certificate, key and authorities from files, taken anew when they are replaced."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import stat
import time
from base64 import b64decode
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path

from agent.errors import SettingsError
from agent.log import Log
from agent.settings_tls import TlsSettings

LOOK_SECONDS = 3.0
"""How often the files are looked at: three calls of stat."""

_TOO_WEAK = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}
"""What OpenSSL says of a certificate that it does not take at its security level."""


class Certificates:
    """One TLS context for the socket, which hands each connection to the newest one that could be made."""

    def __init__(self, settings: TlsSettings, log: Log) -> None:
        """Read the files.

        Raises: SettingsError, which names the key whose file is not usable
        """
        self._settings = settings
        self._log = log
        self._read = self._texts()
        self._newest = _context_of(self._read)
        self._refused: tuple[dict[str, bytes], str] | None = None
        self._authority_gone_at = 0.0
        self._watcher: asyncio.Task[None] | None = None
        # load_cert_chain on a context that is in use leaves it without a key when the new pair does not fit, and an
        # authority that was added to one cannot be taken away. So each pair gets a context of its own, and the one that
        # listens passes a connection on when its ClientHello is there: OpenSSL calls this without a server name too.
        self.context = _context_of(self._read)
        self.context.sni_callback = self._pass_on
        self._warn_of_readable_key()

    def start(self) -> None:
        """Look for replaced files from now on."""
        self._watcher = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Stop that."""
        if self._watcher is not None:
            self._watcher.cancel()

    def look(self) -> None:
        """Take files that were replaced; those that are not usable are logged once, and the old ones hold."""
        read: dict[str, bytes] = {}
        try:
            read = self._texts()
            if read == self._read:
                self._refused = None
                return
            context = _context_of(read)
        except SettingsError as problem:
            # Not by time of change: a pair that is half written is looked at again until it is whole.
            if self._refused != (read, problem.message):
                self._refused = (read, problem.message)
                self._log.error("tls_files_not_taken", reason=problem.message)
            return
        if _certificates(self._read.get("client_ca", b"")) - _certificates(read.get("client_ca", b"")):
            self._authority_gone_at = time.time()
        self._read, self._newest, self._refused = read, context, None
        self._log.info("tls_files_taken", sha256=_fingerprint(read["certificate"]))
        self._warn_of_readable_key()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
                self._log.exception("bug")

    def _pass_on(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> int | None:
        connection.context = self._newest
        # Up to TLS 1.2, OpenSSL lets a session of the last five minutes go on without looking at the client's
        # certificate again, and Python cannot switch that off. A client that is refused here begins a new session.
        if connection.session_reused and (begun := connection.session) and begun.time <= self._authority_gone_at:
            return ssl.ALERT_DESCRIPTION_ACCESS_DENIED
        return None

    def _texts(self) -> dict[str, bytes]:
        files = {"certificate": self._settings.certificate, "key": self._settings.key}
        if self._settings.client_ca is not None:
            files["client_ca"] = self._settings.client_ca
        return {name: _text_of(name, path) for name, path in files.items()}

    def _warn_of_readable_key(self) -> None:
        """Say it and go on, as with other secrets: a file of a Kubernetes secret is readable by all unless told."""
        with suppress(OSError):  # it may be gone since it was read; the next look says so
            if self._settings.key.stat().st_mode & stat.S_IROTH:
                self._log.warning("tls_key_readable_by_others", file=str(self._settings.key), remedy="chmod o-r")


def _text_of(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise SettingsError(f"tls.{name}", f"the file {path} cannot be read: {problem.strerror}") from None


def _context_of(texts: dict[str, bytes]) -> ssl.SSLContext:
    """Make a context of what was read, and of nothing that is read again: files may be replaced in between.

    Raises: SettingsError
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make its server work for nothing with it; TLS 1.3 has it no more.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    with ExitStack() as open_files:
        # OpenSSL takes names of files. These are in memory: the image has no folder for temporary files, and a private
        # key should not be written to one.
        paths = {name: open_files.enter_context(_InMemory(text)).path for name, text in texts.items()}
        # load_cert_chain does not say which of its two files is wrong.
        _take_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "certificate", paths)
        try:
            context.load_cert_chain(paths["certificate"], paths["key"], password=_no_passphrase)
        except _Passphrase:
            raise SettingsError("tls.key", "has a passphrase, which nobody is there to give") from None
        except ssl.SSLError as problem:
            if problem.reason in _TOO_WEAK:
                raise SettingsError("tls.certificate", "its key or signature is too weak for OpenSSL") from None
            if problem.reason == "KEY_VALUES_MISMATCH":
                raise SettingsError("tls.key", "is not the key of the certificate in tls.certificate") from None
            raise SettingsError("tls.key", "is no private key in PEM") from None
        if "client_ca" in paths:
            _take_authorities(context, "client_ca", paths)
            context.verify_mode = ssl.CERT_REQUIRED
            # A ticket would let a client in again whose authority was taken away in the meantime.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
    return context


def _take_authorities(context: ssl.SSLContext, name: str, paths: dict[str, str]) -> None:
    """Let a context trust the certificates of a file.

    Raises: SettingsError, when none is in it
    """
    try:
        context.load_verify_locations(paths[name])
    except ssl.SSLError:
        raise SettingsError(f"tls.{name}", "is no certificate in PEM") from None


def _certificates(text: bytes) -> set[bytes]:
    return set(re.findall(rb"-----BEGIN [^-]*CERTIFICATE-----(.*?)-----END", text, flags=re.DOTALL))


def _fingerprint(certificate: bytes) -> str:
    """Give the SHA-256 of the first certificate in hex: `openssl x509 -fingerprint -sha256` has it with colons."""
    base64 = certificate.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END CERTIFICATE-----")[0]
    return sha256(b64decode(base64)).hexdigest()


class _Passphrase(Exception):
    """OpenSSL asked for one; without this it would ask the terminal."""


def _no_passphrase() -> bytes:
    raise _Passphrase


class _InMemory:
    """A file in memory that has a name as long as it is open."""

    def __init__(self, text: bytes) -> None:
        self._descriptor = os.memfd_create("dbvalet-tls", os.MFD_CLOEXEC)
        os.write(self._descriptor, text)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def __enter__(self) -> _InMemory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
