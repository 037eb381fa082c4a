"""What is told to libpq when a session is opened."""

from engines.address import parse_address
from engines.postgresql.session import parameters


def test_the_parts_of_the_url_come_out_decoded() -> None:
    given = parameters(parse_address("postgresql://v%40let:p%2Fw%20d@[::1]:6432/my%20app", 5432))
    wanted = {"host": "::1", "port": 6432, "user": "v@let", "password": "p/w d", "dbname": "my app"}
    assert {name: given[name] for name in wanted} == wanted


def test_what_the_url_does_not_say_is_left_to_libpq() -> None:
    given = parameters(parse_address("postgresql://localhost/app", 5432))
    assert (given["user"], given["password"], given["port"]) == (None, None, 5432)
    assert "sslmode" not in given


def test_options_of_the_url_are_handed_on_and_may_change_defaults() -> None:
    url = "postgresql://localhost/app?sslmode=verify-full&sslrootcert=/ca.pem&tcp_user_timeout=500"
    given = parameters(parse_address(url, 5432))
    assert (given["sslmode"], given["sslrootcert"], given["tcp_user_timeout"]) == ("verify-full", "/ca.pem", "500")


def test_what_dbvalet_relies_on_cannot_be_changed_by_the_url() -> None:
    url = "postgresql://localhost/app?application_name=x&client_encoding=LATIN1&options=-c%20search_path%3Dpublic"
    given = parameters(parse_address(url, 5432))
    assert (given["application_name"], given["client_encoding"]) == ("dbvalet", "UTF8")
    assert str(given["options"]).index("search_path=public") < str(given["options"]).index("search_path=pg_catalog")
