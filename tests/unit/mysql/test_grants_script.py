import pytest

from engines.engine import GrantsFor
from engines.mysql.grants import grants


def statements(whom: GrantsFor) -> list[str]:
    return [line for line in grants(whom).splitlines() if line and not line.startswith("--")]


@pytest.mark.parametrize(
    ("flavour", "version", "mode", "last"),
    [
        (
            None,
            (),
            "",
            ["GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO 'valet'@'%';", "GRANT SYSTEM_USER ON *.* TO 'valet'@'%';"],
        ),
        ("mysql", (8, 0, 12), "", ["GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO 'valet'@'%';"]),
        ("mysql", (5, 7, 44), "NO_AUTO_CREATE_USER", ["GRANT SUPER ON *.* TO 'valet'@'%';"]),
        ("mariadb", (), "NO_AUTO_CREATE_USER", ["GRANT SUPER ON *.* TO 'valet'@'%';"]),
        ("mariadb", (10, 5, 23), "NO_AUTO_CREATE_USER", ["GRANT SUPER ON *.* TO 'valet'@'%';"]),
    ],
)
def test_each_flavour_and_version_gets_what_it_has(
    flavour: str | None, version: tuple[int, ...], mode: str, last: list[str]
) -> None:
    written = statements(GrantsFor(flavour=flavour, version=version, password="p"))
    assert written == [
        f"SET SESSION sql_mode = '{mode}';",
        "CREATE USER IF NOT EXISTS 'valet'@'%' IDENTIFIED BY 'p';",
        "ALTER USER 'valet'@'%' IDENTIFIED BY 'p';",
        "GRANT SHOW DATABASES, CREATE, DROP, ALTER ROUTINE, EVENT ON *.* TO 'valet'@'%';",
        *last,
    ]


def test_without_a_password_the_script_makes_no_account() -> None:
    for flavour in ("mysql", "mariadb"):
        script = grants(GrantsFor(flavour=flavour))
        assert "IDENTIFIED" not in script
        assert statements(GrantsFor(flavour=flavour))[1] == "SHOW GRANTS FOR 'valet'@'%';"


def test_nothing_that_reads_or_writes_rows_is_granted() -> None:
    for flavour in ("mysql", "mariadb"):
        granted = " ".join(line for line in statements(GrantsFor(flavour=flavour)) if line.startswith("GRANT"))
        for privilege in ("ALL", "SELECT", "INSERT", "UPDATE", "DELETE", "FILE", "CREATE USER", "GRANT OPTION"):
            assert privilege not in granted


def test_odd_names_and_passwords_stay_inside_their_quotes() -> None:
    written = statements(GrantsFor(user="it's {x} \\", password="'; DROP DATABASE app; -- {0} %s \\"))
    assert written[1] == (
        "CREATE USER IF NOT EXISTS 'it''s {x} \\\\'@'%' IDENTIFIED BY '''; DROP DATABASE app; -- {0} %s \\\\';"
    )
