import ssl
from pathlib import Path

import pytest

from engines.mysql.tls import Mode, Tls, context, requested


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, Mode.PREFERRED),
        ({"charset": "utf8mb4", "serverTimezone": "UTC"}, Mode.PREFERRED),
        ({"ssl": "true"}, Mode.REQUIRED),
        ({"ssl": ""}, Mode.REQUIRED),
        ({"ssl": "0"}, Mode.DISABLED),
        ({"ssl-mode": "VERIFY_CA"}, Mode.VERIFY_CA),
        ({"ssl_mode": "verify_identity"}, Mode.VERIFY_IDENTITY),
        ({"sslMode": "Disabled"}, Mode.DISABLED),
        ({"sslmode": "verify-full"}, Mode.VERIFY_IDENTITY),
        ({"tls": "skip-verify"}, Mode.REQUIRED),
        ({"useSSL": "true", "verifyServerCertificate": "false"}, Mode.REQUIRED),
        ({"useSSL": "true", "verifyServerCertificate": "true"}, Mode.VERIFY_CA),
        ({"ssl_verify_identity": "1"}, Mode.VERIFY_IDENTITY),
        ({"ssl": "false", "ssl_verify_cert": "true"}, Mode.DISABLED),
        ({"ssl_ca": "/ca.pem"}, Mode.VERIFY_CA),
        ({"ssl_ca": "/ca.pem", "ssl-mode": "REQUIRED"}, Mode.REQUIRED),
        ({"ssl_cert": "/c.pem"}, Mode.REQUIRED),
    ],
)
def test_every_spelling_in_use_is_understood(options: dict[str, str], mode: Mode) -> None:
    assert requested(options).mode is mode


def test_the_files_are_taken_from_the_url() -> None:
    asked = requested({"ssl_ca": "/ca.pem", "ssl-cert": "/c.pem", "sslKey": "/k.pem"})
    assert asked == Tls(mode=Mode.VERIFY_CA, ca="/ca.pem", certificate="/c.pem", key="/k.pem")


@pytest.mark.parametrize("options", [{"ssl": "perhaps"}, {"ssl-mode": "VERIFY"}, {"ssl_key": "/k.pem"}])
def test_what_is_not_understood_is_a_mistake_and_not_left_out(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="ssl"):
        requested(options)


def test_disabled_needs_no_context() -> None:
    assert context(Tls(mode=Mode.DISABLED)) is None


@pytest.mark.parametrize("mode", [Mode.PREFERRED, Mode.REQUIRED])
def test_the_certificates_of_the_system_are_not_read_unless_something_is_verified(mode: Mode) -> None:
    made = context(Tls(mode=mode))
    assert made is not None
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_NONE, False)
    assert made.cert_store_stats()["x509"] == 0


@pytest.mark.parametrize(("mode", "checks_name"), [(Mode.VERIFY_CA, False), (Mode.VERIFY_IDENTITY, True)])
def test_verifying_modes_verify(mode: Mode, checks_name: bool) -> None:
    made = context(Tls(mode=mode))
    assert made is not None
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, checks_name)


def test_a_file_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(OSError):
            context(Tls(mode=Mode.VERIFY_CA, ca=str(path)))
