"""The guard that keeps every dbvalet under test off an administrator's account."""

from pathlib import Path
from urllib.parse import quote

import pytest

from engines.address import parse_address
from tests.fakes import ENGINE
from tests.live.admins import ADMIN_PASSWORD, ADMINS, AdminUsed, as_admin
from tests.unit.running import configuration, environment

PASSWORD = quote(ADMIN_PASSWORD, safe="")


@pytest.fixture(params=sorted(set(ADMINS.values())))
def url(request: pytest.FixtureRequest) -> str:
    return f"fake://{request.param}:{PASSWORD}@127.0.0.1:1/app?option=1"


def test_no_server_is_made_with_an_administrators_account(url: str) -> None:
    with pytest.raises(AdminUsed):
        ENGINE.connect(parse_address(url, 1))


def test_no_configuration_holds_an_administrators_account(url: str, tmp_path: Path) -> None:
    with pytest.raises(AdminUsed):
        configuration(tmp_path, {"id": "ad-one", "url": "fake://valet:x@h/app"}, {"id": "ad-two", "url": url})
    assert list(tmp_path.iterdir()) == []


def test_no_variable_holds_an_administrators_account(url: str) -> None:
    with pytest.raises(AdminUsed):
        environment({"DBVALET_DATABASE_URL": url})


def test_who_says_why_may(url: str, tmp_path: Path) -> None:
    with as_admin("it is about the guard"):
        ENGINE.connect(parse_address(url, 1))
        configuration(tmp_path, {"id": "ad-one", "url": url})
    with pytest.raises(AdminUsed):
        configuration(tmp_path, {"id": "ad-one", "url": url})


def test_a_reason_is_a_reason() -> None:
    with pytest.raises(AssertionError), as_admin(" "):
        pass


@pytest.mark.parametrize("account", [f"valet:{PASSWORD}", "root:another", "postgres:another", "root", ""])
def test_every_other_account_is_let_through(account: str) -> None:
    ENGINE.connect(parse_address(f"fake://{account}@127.0.0.1:1/app", 1))
