"""How the text of a log is taken apart: moments, lines that go on, wrappings, secrets."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from engines.health import LogLine
from engines.log_text import BYTES_A_LINE, LEAST_BYTES, LONGEST, MOST_BYTES, bytes_for, entries, masked, moment_of

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
EIGHT = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
CET = timezone(timedelta(hours=1), "CET")


def test_the_more_lines_are_wanted_the_more_is_read_within_bounds():
    assert (LEAST_BYTES, BYTES_A_LINE, MOST_BYTES) == (65_536, 512, 1_048_576)
    assert [bytes_for(lines) for lines in (1, 128, 129, 2048, 2049)] == [65_536, 65_536, 66_048, 1_048_576, 1_048_576]


@pytest.mark.parametrize(
    ("written", "moment", "rest"),
    [
        ("2026-01-31 08:00:00 ready", EIGHT, "ready"),
        ("2026-01-31 08:00:00\tready", EIGHT, "ready"),
        ("2026-01-31 08:00:00,5 ready", EIGHT.replace(microsecond=500_000), "ready"),
        ("2026-01-31 08:00:00.123456789 ready", EIGHT.replace(microsecond=123_456), "ready"),
        ("2026-01-31 08:00:00 GMT ready", EIGHT, "ready"),
        ("2026-01-31 08:00:00Z ready", EIGHT, "ready"),
        ("2026-01-31 09:00:00+01 ready", EIGHT, "ready"),
        ("2026-01-31 09:30:00+0130 ready", EIGHT, "ready"),
        ("2026-01-31 09:30:00 +01:30 ready", EIGHT, "ready"),
        ("2026-01-31 03:00:00 -05 ready", EIGHT, "ready"),
        ("2026-01-31 08:00:00 ABCDEF", EIGHT, "ABCDEF"),
        ("2026-01-31 09:00:00 CET ready", EIGHT, "ready"),
        ("2026-02-30 08:00:00 no such day", None, "no such day"),
        ("at 2026-01-31 08:00:00", None, "at 2026-01-31 08:00:00"),
        ("", None, ""),
    ],
)
def test_a_moment_is_read_in_every_form_that_engines_write(written: str, moment: datetime | None, rest: str):
    assert moment_of(written, CET) == (moment, rest)


@pytest.mark.parametrize(
    "line",
    [
        '{"t":{"$date":"2026-01-31T08:0',
        '{"t":{"$day":1}}',
        '{"t":null}',
        '{"t":{"$date":1769846400}}',
        '{"t":{"$date":"yesterday"}}',
        "ts=",
        "ts=yesterday lvl=info",
        "[httpd] GET /ping",
        "[httpd] [31/Foo/2026:08:00:00 +0000]",
        "lvl=info ts=2026-01-31T08:00:00Z lvl=info",
        "127.0.0.1 - - [31/Jan/2026:08:00:00 +0000]",
    ],
)
def test_a_line_that_tells_no_moment_that_can_be_read_stays_whole(line: str):
    assert moment_of(line) == (None, line)


def test_a_line_of_influxdb_and_of_mongodb_keeps_its_moment_in_the_text():
    for line in (
        "ts=2026-01-31T08:00:00.000000001Z lvl=info",
        '{"t":{"$date":"2026-01-31T08:00:00Z"}}',
        "[httpd] 10.0.0.1 - root [31/Jan/2026:09:00:00 +0100] GET",
    ):
        assert moment_of(line) == (EIGHT, line)


def test_of_a_log_that_begins_in_the_middle_what_belongs_to_something_before_is_left_out():
    content = b"half a line\n\tof something\n2026-01-31 08:00:00 a\n\tgoes on\n2026-01-31 08:00:00 b\n"
    a, b = LogLine(at=EIGHT, text="a\n\tgoes on"), LogLine(at=EIGHT, text="b")
    assert entries(content, cut=True, otherwise=NOW) == [a, b]
    before = [LogLine(at=NOW, text="half a line"), LogLine(at=NOW, text="\tof something")]
    assert entries(content, cut=False, otherwise=NOW) == [*before, a, b]
    assert entries(b"one line without an end", cut=True, otherwise=NOW) == []


def test_a_log_whose_lines_tell_no_moment_is_one_entry_a_line_and_empty_ones_are_none():
    found = entries(b"a\n\n  \nb\nunfinished", cut=False, otherwise=NOW)
    assert found == [LogLine(at=NOW, text="a"), LogLine(at=NOW, text="b")]
    assert entries(b"half\na\n", cut=True, otherwise=NOW) == [LogLine(at=NOW, text="a")]


def test_an_empty_line_within_an_entry_belongs_to_it():
    found = entries(b"2026-01-31 08:00:00 a\n\nb\n", cut=False, otherwise=NOW)
    assert found == [LogLine(at=EIGHT, text="a\n\nb")]


def test_an_abbreviation_stands_for_the_zone_of_the_server():
    content = b"2026-01-31 09:00:00 CET a\n"
    assert entries(content, cut=False, otherwise=NOW, zone=CET) == [LogLine(at=EIGHT, text="a")]


def test_a_wrapped_line_has_its_own_moment_or_that_of_the_wrapping_or_that_of_the_file():
    content = (
        b'{"log":"2026-01-31 08:00:00 own\\n","time":"2026-01-31T08:30:00Z"}\n'
        b'{"log":"\\n goes on\\n","time":"2026-01-31T08:30:00Z"}\n'
    )
    assert entries(content, cut=False, otherwise=NOW) == [LogLine(at=EIGHT, text="own\n\n goes on")]
    half_past = EIGHT + timedelta(minutes=30)
    for line, at in (
        (b'{"log":"plain\\n","time":"2026-01-31T08:30:00.123456789Z"}\n', half_past.replace(microsecond=123_456)),
        (b'{"log":"plain\\n"}\n', NOW),
        (b'{"log":"plain\\n","time":"then"}\n', NOW),
        (b"2026-01-31T08:30:00Z stdout P plain\n", half_past),
    ):
        assert entries(line, cut=False, otherwise=NOW) == [LogLine(at=at, text="plain")]
    for broken in ('{"log":"cut short', '{"log":"a","time'):
        assert entries(f"{broken}\n".encode(), cut=False, otherwise=NOW) == [LogLine(at=NOW, text=broken)]
    (found,) = entries(b"2026-01-31T08:30:00Z stdout X plain\n", cut=False, otherwise=NOW)
    assert found.text == "stdout X plain"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("CREATE USER x IDENTIFIED BY 'a' PASSWORD EXPIRE", "CREATE USER x IDENTIFIED BY [secret] PASSWORD EXPIRE"),
        ("ALTER USER x IDENTIFIED BY 'a' REPLACE 'b'", "ALTER USER x IDENTIFIED BY [secret] REPLACE [secret]"),
        ("SET PASSWORD FOR x TO 'a'; SELECT 1", "SET PASSWORD FOR x TO [secret]; SELECT 1"),
        ("SET PASSWORD FOR 'x'@'%' = OLD_PASSWORD('a')", "SET PASSWORD FOR 'x'@'%' = OLD_PASSWORD([secret])"),
        ("SET PASSWORD = 0xFF, x", "SET PASSWORD = [secret], x"),
        ("PASSWORD $tag$a$b$tag$ LOGIN", "PASSWORD [secret] LOGIN"),
        ("PASSWORD 'a' -- b\n 'c' LOGIN", "PASSWORD [secret] LOGIN"),
        ('{"pwd": "a", "user": "b"}', '{"pwd": [secret], "user": "b"}'),
        ("secret = 'a' b", "secret = [secret] b"),
        ("host=h password=a user=u", "host=h password=[secret] user=u"),
        ("mysql://u:a@host/db", "mysql://u:[secret]@host/db"),
        ("GET /query?p=a&q=SHOW", "GET /query?p=[secret]&q=SHOW"),
        ("GET /query?u=r&p=a HTTP", "GET /query?u=r&p=[secret] HTTP"),
        ("CONNECTION 'password=''a b'' user=u'", "CONNECTION 'password=[secret] user=u'"),
        ("DO 'ALTER ROLE x PASSWORD ''a'' LOGIN'", "DO 'ALTER ROLE x PASSWORD [secret] LOGIN'"),
        ("DO 'DO ''ALTER ROLE x PASSWORD ''''a'''' LOGIN''", "DO 'DO ''ALTER ROLE x PASSWORD [secret] LOGIN''"),
        ("CREATE ROLE x PASSWORD '' VALID UNTIL 'y'", "CREATE ROLE x PASSWORD [secret] VALID UNTIL 'y'"),
        ("set_config('my.password', 'a', true)", "set_config('my.password', [secret], true)"),
        ("password = crypt('a', gen_salt('bf'))", "password = crypt([secret], gen_salt('bf'))"),
        ("password = $1 AND b", "password = $1 AND b"),
        ("PASSWORD /* one */ --two\r# three\n'a' LOGIN", "PASSWORD /* one */ --two\r# three\n[secret] LOGIN"),
        ("PASSWORD /* /* */ */ 'a' LOGIN", "PASSWORD [secret]"),
        ("IDENTIFIED BY /*!50000 'a' */, x", "IDENTIFIED BY [secret]"),
        ("PASSWORD /*" + "x" * 300 + "*/ 'a' LOGIN", "PASSWORD [secret]"),
        ("PASSWORD " + "/**/" * 30 + "'a' LOGIN", "PASSWORD /**//**//**//**//**//**//**/[secret]"),
        ("IDENTIFIED BY 'a' REPLACE'b'", "IDENTIFIED BY [secret] REPLACE[secret]"),
        ("SET PASSWORD FOR \"x = 'y'\" = 'a'", "SET PASSWORD FOR \"x = 'y'\" = [secret]"),
        ("SET my.password TO 'a'", "SET my.password TO [secret]"),
        ("OPTIONS (sslpassword 'a', user 'b')", "OPTIONS (sslpassword [secret], user 'b')"),
        ("OPTIONS (scram_client_key 'a', user 'b')", "OPTIONS (scram_client_key [secret], user 'b')"),
        ("PROGRAM 'PGPASSWORD=a psql --password b'", "PROGRAM 'PGPASSWORD=[secret] psql --password [secret]'"),
        ("'host=h password=a\\ b user=u'", "'host=h password=[secret] user=u'"),
        ("CONNECTION 'password=''it\\''s b'' user=u'", "CONNECTION 'password=[secret] user=u'"),
        ("postgresql://u:a@b@host/db", "postgresql://u:[secret]@host/db"),
        ("password = encode(digest('a', 'sha256'), 'hex')", "password = encode(digest([secret], 'sha256'), 'hex')"),
        ("SELECT x, format('PASSWORD %L', 'a')", "SELECT x, format([secret]"),
        ("DO $$pw := 'a'; format('PASSWORD %2$s', pw)$$", "DO [secret]"),
        ("EXECUTE 'ALTER ROLE x PASSWORD ' || quote_literal('a')", "EXECUTE [secret]"),
        ("EXECUTE 'ALTER ROLE x PASSWORD ''' || 'a' || ''''", "EXECUTE [secret]"),
        ("dblink('x password=' || 'a', 'y')", "dblink([secret]"),
        ("SELECT 'password='; ALTER ROLE x PASSWORD 'a'", "SELECT 'password[secret]"),
        ("k = 'password'; ALTER ROLE x PASSWORD 'a'", "k = 'password[secret]"),
        ("api_key = 'a' b", "api_key = [secret] b"),
        ("GET /query?u=r;p=a&q=SHOW", "GET /query?u=r;p=[secret]&q=SHOW"),
        ("GET /query?%70=a&q=SHOW", "GET /query?%70=[secret]&q=SHOW"),
        ("q=WITH+PASSWORD+%27a%27&db=x", "q=WITH+PASSWORD[secret]&db=x"),
        ("q=SET%20PASSWORD%20FOR%20x%20=%20%27a%27&db=x", "q=SET%20PASSWORD[secret]&db=x"),
        ("Authorization: Bearer a", "Authorization: Bearer [secret]"),
        ("\"PASSWORD\\n'a' LOGIN\"", '"PASSWORD\\n[secret] LOGIN"'),
        ("SELECT 'SCRAM-SHA-256$1:a$b:c', 1", "SELECT 'SCRAM-SHA-256$[secret]', 1"),
        ("SELECT 'md5" + "0a" * 16 + "', 1", "SELECT 'md5[secret]', 1"),
    ],
)
def test_of_a_statement_only_the_secret_is_masked(text: str, shown: str):
    assert masked(text) == shown
    assert masked(text.swapcase()) == shown.swapcase().replace("[SECRET]", "[secret]")


LONG = r"""
import itertools, resource
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from engines.log_text import LONGEST, masked
words = ("identified by", "password", "password=", "set password for a", "replace", "pwd=", "x://u:")
between = ("/*", "/* ", "/**/", "--", "\n--", "--\n", " /* /* ", "'", "\\'", "=", "(")
for word, gap in itertools.product(words, between):
    masked((word + gap) * (LONGEST // len(word + gap)))
masked("SELECT /* " + "identified by/* " * 2000 + " */" * 2001)
"""


def test_no_text_takes_the_square_of_its_length():
    # All of them take seconds; where a text costs the square of its length, one of them takes more than a minute.
    subprocess.run([sys.executable, "-c", LONG], check=True)


def test_of_a_long_text_that_may_hold_a_password_the_end_is_not_shown():
    text = "PASSWORD 'a' " + "x" * LONGEST
    assert masked(text) == f"PASSWORD [secret] {'x' * (LONGEST - 13)} [cut: this has {LONGEST + 13} characters]"
    assert masked("x" * (LONGEST + 1)) == "x" * (LONGEST + 1)
