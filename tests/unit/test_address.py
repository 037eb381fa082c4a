"""Database URLs."""

import pytest

from engines.address import parse_address


def test_every_part_of_a_url_is_read():
    address = parse_address("mongodb://val%40et:p%2Fss%25@[::1]:27018/my%20app?authSource=admin&tls=&a=b%26c", 27017)

    assert (address.scheme, address.host, address.port) == ("mongodb", "::1", 27018)
    assert (address.user, address.password, address.database) == ("val@et", "p/ss%", "my app")
    assert address.options == {"authSource": "admin", "tls": "", "a": "b&c"}
    assert str(address) == "mongodb://val@et@[::1]:27018/my app"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("x://h/d", "h", 9),
        ("x://h:1/d", "h", 1),
        ("x://H.Example/d", "h.example", 9),
        ("x://a:1,b:2,c/d", "a", 1),
        ("x://u:p@a,b:2/d", "a", 9),
        ("x://%2Ftmp%2Fsock/d", "/tmp/sock", 9),
    ],
)
def test_the_first_host_and_its_port_or_the_default(url: str, host: str, port: int):
    address = parse_address(url, 9)
    assert (address.host, address.port) == (host, port)


@pytest.mark.parametrize(
    ("url", "user", "password"),
    [
        ("x://h/d", None, None),
        ("x://u@h/d", "u", None),
        ("x://u:@h/d", "u", None),
        ("x://:p@h/d", None, "p"),
        ("x://u:a:b@h/d", "u", "a:b"),
        ("x://u:a@b@h/d", "u", "a@b"),
    ],
)
def test_user_and_password_may_be_missing_or_odd(url: str, user: str | None, password: str | None):
    address = parse_address(url, 9)
    assert (address.user, address.password) == (user, password)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("x://u:planted@/d", "names no host"),
        ("planted", "names no host"),
        ("x:///d", "names no host"),
        ("x://u:planted@h", "names no logical database"),
        ("x://u:planted@h/", "names no logical database"),
        ("x://u:planted@h/a/b", "names no logical database"),
        ("x://u:pla[nted@h/d", "is not a URL"),
        ("x://u:planted@h:port/d", "is not a URL"),
        ("x://u:planted@h:99999/d", "is not a URL"),
        ("x://u:pla/nted@h/d", "is not a URL|names no logical database"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_quoting_it(url: str, text: str):
    with pytest.raises(ValueError, match=f"^({text})") as refused:
        parse_address(url, 9)
    assert "pla" not in str(refused.value)


def test_no_secret_is_seen_in_an_address():
    address = parse_address("x://u:planted@h/d?token=planted", 9)
    assert "planted" not in f"{address} {address!r}"
