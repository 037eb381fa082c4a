"""The configuration: every mistake is one line that names the key and quotes no secret."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent.app import create_app
from agent.errors import SettingsError
from agent.settings import Settings, load_settings
from tests.fakes import ENGINE
from tests.unit.mistakes import MISTAKES, SECRETS, TOKEN, URL, VARIABLES, database, sound, token


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in os.environ:
        if name.upper().startswith("DBVALET_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def file_of(folder: Path, content: Any) -> Path:
    file = folder / "dbvalet.yaml"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def start(config: Path | None) -> Settings:
    """Do what a start checks."""
    settings = load_settings(config)
    create_app(settings, engines={"fake": ENGINE})
    return settings


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, mistake: str):
    content, line = MISTAKES[mistake]
    file = file_of(tmp_path, content)
    with pytest.raises(SettingsError) as refused:
        start(file)

    assert refused.value.message.startswith(line.format(file=file))
    assert "\n" not in refused.value.message
    assert not [secret for secret in SECRETS if secret in refused.value.message]


@pytest.mark.parametrize("mistake", VARIABLES)
def test_a_mistake_in_a_variable_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, mistake: str):
    variables, line = VARIABLES[mistake]
    for name, value in variables.items():
        monkeypatch.setenv(f"DBVALET_{name}", value)
    with pytest.raises(SettingsError) as refused:
        start(None)

    assert refused.value.message.startswith(line)
    assert "\n" not in refused.value.message
    assert not [secret for secret in SECRETS if secret in refused.value.message]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"^--config: /nowhere/x cannot be read: No such file or directory$"):
        load_settings(Path("/nowhere/x"))
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory$"):
        load_settings(tmp_path)


def test_a_secret_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "token").write_bytes(b"\xff" * 32)
    with pytest.raises(SettingsError, match=r"^tokens\.0: the file token cannot be read: it is not UTF-8$"):
        start(file_of(tmp_path, token(token=..., token_file="token")))


def test_a_url_of_a_file_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "url").write_text("oracle://h/d\n")
    with pytest.raises(SettingsError, match=r"^databases\.0\.url_file: must begin with"):
        start(file_of(tmp_path, database(url=..., url_file="url")))
    monkeypatch.setenv("DBVALET_DATABASE_URL_FILE", "url")
    monkeypatch.setenv("DBVALET_TOKEN", TOKEN)
    with pytest.raises(SettingsError, match=r"^DBVALET_DATABASE_URL_FILE: must begin with"):
        start(None)


def test_a_sidecar_needs_two_variables_and_no_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DBVALET_DATABASE_URL", URL)
    monkeypatch.setenv("DBVALET_TOKEN", TOKEN)
    settings = start(None)

    (only,) = settings.all_databases()
    (holder,) = settings.all_tokens()
    assert (only.id, only.address().get_secret_value()) == ("ad-local", URL)
    assert (holder.name, holder.role, holder.databases) == ("default", "admin", ["*"])
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_a_sidecar_takes_its_secrets_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "url").write_text(URL + "\n")
    (tmp_path / "token").write_text(TOKEN + "\r\n")
    monkeypatch.setenv("DBVALET_DATABASE_URL_FILE", "url")
    monkeypatch.setenv("DBVALET_TOKEN_FILE", "token")
    monkeypatch.setenv("DBVALET_DATABASE_ID", "ad-mine")
    settings = start(None)

    assert settings.all_databases()[0].address().get_secret_value() == URL
    assert settings.all_databases()[0].id == "ad-mine"
    assert settings.all_tokens()[0].secret().get_secret_value() == TOKEN


def test_files_of_secrets_are_read_once(tmp_path: Path):
    for name, text in (("url", URL), ("token", TOKEN)):
        (tmp_path / name).write_text(text)
    raw = token(token=..., token_file="token") | {"databases": [{"id": "ad-one", "url_file": "url"}]}
    settings = load_settings(file_of(tmp_path, raw))
    for name in ("url", "token"):
        (tmp_path / name).unlink()

    create_app(settings, engines={"fake": ENGINE})


def test_variables_win_over_the_file_and_add_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DBVALET_LISTEN", "[::1]:0")
    monkeypatch.setenv("DBVALET_LIMITS", '{"read": "5/second"}')
    monkeypatch.setenv("DBVALET_DATABASE_URL", URL)
    monkeypatch.setenv("DBVALET_TOKEN", TOKEN + "2")
    settings = start(file_of(tmp_path, sound(listen="0.0.0.0:80")))

    assert (settings.host, settings.port) == ("::1", 0)
    assert settings.limits.read == "5/second"
    assert [each.id for each in settings.all_databases()] == ["ad-one", "ad-local"]
    assert [each.name for each in settings.all_tokens()] == ["ops", "default"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LocalHost.", "[::ffff:127.0.0.1]"])
def test_loopback_needs_no_word(tmp_path: Path, host: str):
    assert start(file_of(tmp_path, sound(listen=f"{host}:0"))).port == 0


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "[::]", "192.0.2.1", "[fd00::1]", "db.internal", "localhost.example", "127.1", "[::ffff:10.0.0.1]"],
)
def test_another_address_needs_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str):
    file = file_of(tmp_path, sound(listen=f"{host}:0"))
    with pytest.raises(SettingsError, match=r"^listen: is not loopback, .*insecure_listen: true"):
        start(file)
    monkeypatch.setenv("DBVALET_INSECURE_LISTEN", "true")
    assert start(file).port == 0


def test_lists_may_be_given_as_json_in_variables(monkeypatch: pytest.MonkeyPatch):
    raw = sound()
    monkeypatch.setenv("DBVALET_TOKENS", json.dumps(raw["tokens"]))
    monkeypatch.setenv("DBVALET_DATABASES", json.dumps(raw["databases"]))
    assert [each.id for each in start(None).all_databases()] == ["ad-one"]


def test_the_same_token_in_file_and_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DBVALET_TOKEN", TOKEN)
    with pytest.raises(SettingsError, match=r"^DBVALET_TOKEN: default has the same token as another$"):
        start(file_of(tmp_path, sound()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DBVALET_SERVICE_HOST", "10.0.0.1"),
        ("DBVALET_SERVICE_PORT", "8000"),
        ("DBVALET_SERVICE_PORT_HTTP", "8000"),
        ("DBVALET_PORT", "tcp://10.0.0.1:8000"),
        ("DBVALET_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("DBVALET_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("DBVALET_API_SERVICE_HOST", "10.0.0.1"),
        ("DBVALET_API_PORT_8000_TCP_PROTO", "tcp"),
        ("DBVALET_URL", "http://elsewhere"),
        ("OTHER", "planted"),
    ],
)
def test_variables_of_kubernetes_and_of_others_are_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    start(file_of(tmp_path, sound()))


def test_variables_stand_inside_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PG_PASSWORD", "planted-password")
    monkeypatch.setenv("HOST_OF_IT", "db.example")
    raw = database(url="fake://u:${PG_PASSWORD}@${HOST_OF_IT}/d", app_name="${HOST_OF_IT}", plan="p.$X.$$.p")
    raw["databases"][0]["plan"] = "self-hosted"
    (found,) = start(file_of(tmp_path, raw)).all_databases()

    assert found.address().get_secret_value() == "fake://u:planted-password@db.example/d"
    assert found.app_name == "db.example"


def test_two_dollars_stand_for_one_before_a_brace(tmp_path: Path):
    raw = database(resource_id="$${NOT_A_VARIABLE} $x $$")
    assert start(file_of(tmp_path, raw)).all_databases()[0].resource_id == "${NOT_A_VARIABLE} $x $$"


def test_yaml_may_name_things_once_and_refer_to_them(tmp_path: Path):
    text = f"""
tokens: [{{name: ops, token: {TOKEN}, role: admin, databases: ["*"]}}]
databases:
  - &first {{id: ad-one, url: "{URL}", plan: small}}
  - {{<<: *first, id: ad-two}}
"""
    assert [each.plan for each in start(file_of(tmp_path, text.encode())).all_databases()] == ["small", "small"]


def test_no_secret_is_seen_in_the_settings(tmp_path: Path):
    settings = start(file_of(tmp_path, sound()))
    shown = f"{settings!r} {settings} {settings.all_databases()!r} {settings.all_tokens()!r} {settings.model_dump()}"

    assert not [secret for secret in SECRETS if secret in shown]


def test_a_hash_is_a_token_without_a_value(tmp_path: Path):
    settings = start(file_of(tmp_path, token(token=..., sha256=sha256(TOKEN.encode()).hexdigest())))
    assert settings.all_tokens()[0].secret().get_secret_value() == ""
