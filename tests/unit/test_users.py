import pytest

from engines.address import parse_address
from engines.engine import ForgetfulMemory
from engines.errors import Conflict, InvalidParams, Protected, UserNotFound
from engines.users import (
    ALPHABET,
    PASSWORD_LENGTH,
    User,
    change_password,
    check_name,
    create_user,
    delete_user,
    made_password,
)
from tests.fakes.driver import FakeServer
from tests.fakes.service import URL
from tests.fakes.users import FakeUsers


def test_a_made_password_has_a_length_that_clients_accept_and_needs_no_escaping_in_a_url() -> None:
    made = made_password()
    assert len(made) in PASSWORD_LENGTH
    assert set(made) <= set(ALPHABET)


def test_two_made_passwords_differ() -> None:
    assert made_password() != made_password()


class ForgetfulUsers(FakeUsers):
    """An engine that says it has done what it has not."""

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        await super().create(name, password, read_only=False)

    async def delete(self, name: str) -> None:
        pass


def server() -> FakeServer:
    return FakeServer(parse_address(URL, 1), ForgetfulMemory())


async def test_what_the_engine_shows_afterwards_is_what_is_said() -> None:
    users = ForgetfulUsers(server())
    with pytest.raises(Conflict, match="other rights"):
        await create_user(users, "somebody", made_password(), read_only=True)
    with pytest.raises(Conflict, match="there again"):
        await delete_user(users, "somebody")


async def test_a_protected_user_is_not_touched() -> None:
    fake = server()
    users = FakeUsers(fake)
    with pytest.raises(Protected):
        await change_password(users, "valet", made_password())
    with pytest.raises(Protected):
        await delete_user(users, "valet")
    with pytest.raises(UserNotFound):
        await delete_user(users, "Valet")
    assert set(fake.performed) == {"list-users"}
    assert fake.users["valet"] == User("valet", read_only=False, protected=True, password_encryption="SCRAM-SHA-256")


@pytest.mark.parametrize("name", ["postgres", "PG_reader", "1reader", "-reader", "reader\n", "\uff52eader", "m.sys_x"])
def test_a_name_of_the_system_or_out_of_the_rule_is_refused(name: str) -> None:
    with pytest.raises(InvalidParams):
        check_name(name)
