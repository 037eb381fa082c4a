import pytest

from engines.address import parse_address
from engines.engine import ForgetfulMemory
from engines.errors import AlreadyExists, Conflict, InvalidParams, PrivilegeMissing, Protected, UserNotFound
from engines.users import (
    ALPHABET,
    PASSWORD_LENGTH,
    User,
    change_password,
    check_name,
    check_password,
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


@pytest.mark.parametrize("name", ["abcdef", "A-b_c9", "a" * 32, "pgread", "postgres2"])
def test_a_name_within_the_rule_may_be(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["abcde", "a" * 33, "pg_reads", "POSTGRES"])
def test_a_name_that_is_too_short_too_long_or_the_systems_is_told_by_field(name: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        check_name(name)
    assert list(refused.value.errors) == ["name"]
    assert len(refused.value.errors["name"]) == 1


@pytest.mark.parametrize("password", ["a" * 23, "a" * 65, "a" * 24 + "\u00e9", "a" * 24 + "\n", "a" * 24 + "\x7f", ""])
def test_a_password_that_is_refused_is_not_quoted(password: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        check_password(password)
    assert list(refused.value.errors) == ["password"]
    assert "aaa" not in str(refused.value.errors)


def test_a_password_of_any_printable_characters_may_be() -> None:
    for password in ("a" * 24, "~" * 64, " '\"\\%@:/?#[]!$&()*+,;=" + "a" * 10):
        check_password(password)


async def test_what_is_refused_never_reaches_the_engine() -> None:
    fake = server()
    users = FakeUsers(fake)
    with pytest.raises(InvalidParams):
        await create_user(users, "pg_reads", made_password(), read_only=True)
    with pytest.raises(InvalidParams):
        await create_user(users, "somebody", "short", read_only=True)
    with pytest.raises(InvalidParams):
        await change_password(users, "somebody", "short")
    assert fake.performed == []
    await create_user(users, "somebody", made_password(), read_only=True)
    with pytest.raises(AlreadyExists, match="There is a user of this name"):
        await create_user(users, "SOMEBODY", made_password(), read_only=True)
    with pytest.raises(UserNotFound):
        await change_password(users, "nobody-else", made_password())
    assert [each for each in fake.performed if each != "list-users"] == ["create-user somebody"]


async def test_a_user_is_made_changed_and_taken_away() -> None:
    fake = server()
    users, first, second = FakeUsers(fake), made_password(), made_password()
    assert await create_user(users, "somebody", first, read_only=True) == User("somebody", True, protected=False)
    assert fake.passwords["somebody"] == first
    assert await change_password(users, "somebody", second) == User("somebody", True, protected=False)
    assert fake.passwords["somebody"] == second
    await delete_user(users, "somebody")
    assert "somebody" not in fake.users
    assert await create_user(users, "somebody", first, read_only=False) == User("somebody", False, protected=False)


class HiddenUsers(FakeUsers):
    """An engine whose account may not look any more once it has changed something."""

    hidden = False

    async def all(self) -> list[User]:
        if self.hidden:
            raise PrivilegeMissing("It may not look.")
        return await super().all()

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        await super().create(name, password, read_only=read_only)
        self.hidden = True

    async def set_password(self, name: str, password: str) -> None:
        await super().set_password(name, password)
        self.hidden = True

    async def delete(self, name: str) -> None:
        await super().delete(name)
        self.hidden = True


async def test_what_was_done_is_no_refusal_when_the_account_may_not_look_any_more() -> None:
    fake = server()
    said = "said that it is done, but the account may not look whether it is: It may not look"
    with pytest.raises(Conflict, match=said):
        await create_user(HiddenUsers(fake), "somebody", made_password(), read_only=True)
    assert "somebody" in fake.users
    with pytest.raises(Conflict, match=said):
        await change_password(HiddenUsers(fake), "somebody", made_password())
    with pytest.raises(Conflict, match=said):
        await delete_user(HiddenUsers(fake), "somebody")
    assert "somebody" not in fake.users


class FleetingUsers(FakeUsers):
    """An engine from which somebody else takes each new user away."""

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        await super().create(name, password, read_only=read_only)
        await self.delete(name)


async def test_a_user_that_is_deleted_at_once_is_not_told_as_one_that_was_never_made() -> None:
    with pytest.raises(Conflict, match="was created, and is gone"):
        await create_user(FleetingUsers(server()), "somebody", made_password(), read_only=True)
