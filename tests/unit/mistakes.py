"""Mistakes in a configuration, and the line that a start ends with."""

from typing import Any

TOKEN = "a-token-of-the-unit-tests"
SECRETS = (TOKEN, "planted-password", "planted")
URL = "fake://valet:planted-password@127.0.0.1:4321/app"


def sound(**changes: Any) -> dict[str, Any]:
    token = {"name": "ops", "token": TOKEN, "role": "admin", "databases": ["*"]}
    return {"tokens": [token], "databases": [{"id": "ad-one", "url": URL}], **changes}


def token(**changes: Any) -> dict[str, Any]:
    whole = {"name": "ops", "token": TOKEN, "role": "admin", "databases": ["*"], **changes}
    return sound(tokens=[{key: value for key, value in whole.items() if value is not ...}])


def database(**changes: Any) -> dict[str, Any]:
    whole = {"id": "ad-one", "url": URL, **changes}
    return sound(databases=[{key: value for key, value in whole.items() if value is not ...}])


MISTAKES: dict[str, tuple[Any, str]] = {
    "no YAML": (b"tokens: [", "--config: {file} is not YAML in line "),
    "no UTF-8": (b"listen: \xff\xfe\xfa", "--config: {file} is not YAML"),
    "a list": (b"- listen", "--config: {file} must hold keys and values"),
    "a text": (b"planted", "--config: {file} must hold keys and values"),
    "an empty file": (b"", "databases: none is declared, and DBVALET_DATABASE_URL is not set"),
    "a key of Python's": (b"!!python/object/apply:os.system [planted]", "--config: {file} is not YAML in line 1"),
    "a doubled key": (b"listen: a:1\nlisten: b:2\n", "listen: stands twice in {file}, again in line 2"),
    "a doubled key inside": (
        b"databases:\n- id: ad-one\n  url: planted\n  id: ad-two\n",
        "id: stands twice in {file}, again in line 4",
    ),
    "an alias inside its own anchor": (b"tokens: &all\n- *all\n", "--config: {file} refers to itself in line 1"),
    "a list as a key": (b"? [a]\n: b\n", "--config: {file} is not YAML in line 1"),
    "an unknown key": (sound(lisen="planted"), "lisen: is not known"),
    "a key of pydantic's": (sound(_env_file="planted"), "_env_file: is not known"),
    "a number as a key": (b"1: 2", "1: is not known"),
    "an unknown key of a token": (token(rol="planted"), "tokens.0.rol: is not known"),
    "an unknown key of a database": (database(uri="planted"), "databases.0.uri: is not known"),
    "an unknown limit": (sound(limits={"reads": "1/second"}), "limits.reads: is not known"),
    "no database": (sound(databases=[]), "databases: none is declared, and DBVALET_DATABASE_URL is not set"),
    "listen without a port": (
        sound(listen="127.0.0.1"),
        "listen: must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000",
    ),
    "listen without a host": (sound(listen=":8000"), "listen: must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000"),
    "listen on a port too high": (
        sound(listen="a:65536"),
        "listen: must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000",
    ),
    "listen on a number": (sound(listen=8000), "listen: Input should be a valid string"),
    "a state elsewhere": (
        sound(state="mysql://planted@x/y"),
        "state: must be sqlite:///FILE, with a fourth / for an absolute path, or postgresql://USER:PASSWORD@HOST/DATABASE",
    ),
    "a state without a database": (
        sound(state="postgresql://planted@x"),
        "state: names no logical database (the path of the URL)",
    ),
    "a state twice": (
        sound(state="sqlite:///a", state_file="/planted"),
        "state: exactly one of state and state_file is needed",
    ),
    "a storage of an unknown kind": (
        sound(backups={"storage": "planted://x"}),
        "backups: storage: begins with a scheme that fsspec does not know",
    ),
    "a storage without its package": (
        sound(backups={"storage": "gs://planted"}),
        "backups: storage: gs:// needs the package gcsfs, which is not installed",
    ),
    "no backups kept": (
        sound(backups={"keep": {"count": 0}}),
        "backups.keep.count: Input should be greater than or equal to 1",
    ),
    "an unknown key of the backups": (sound(backups={"folder": "planted"}), "backups.folder: is not known"),
    "a public URL with a slash at its end": (
        sound(public_url="https://planted/"),
        "public_url: must be http(s)://HOST, without a trailing slash",
    ),
    "metrics for some": (sound(metrics="planted"), "metrics: Input should be 'token' or 'public'"),
    "an unknown log level": (
        sound(log_level="planted"),
        "log_level: Input should be 'debug', 'info', 'warning' or 'error'",
    ),
    "a rate in words": (
        sound(limits={"read": "planted"}),
        "limits.read: must be a number a second, minute, hour or day: 10/minute",
    ),
    "a rate of nothing": (
        sound(limits={"read": "0/second"}),
        "limits.read: must be a number a second, minute, hour or day: 10/minute",
    ),
    "a token without a name": (token(name=...), "tokens.0.name: is required"),
    "a token with an odd name": (
        token(name="a b"),
        "tokens.0.name: must be up to 64 ASCII letters, digits, ., _ and -",
    ),
    "a token without a value": (
        token(token=...),
        "tokens.0: exactly one of token, token_file and sha256 is needed",
    ),
    "a token with two values": (
        token(sha256="0" * 64),
        "tokens.0: exactly one of token, token_file and sha256 is needed",
    ),
    "a short token": (
        token(token="planted"),
        "tokens.0: the token needs at least 16 characters: make one with `openssl rand -hex 32`",
    ),
    "a token with a space": (
        token(token="planted planted planted"),
        "tokens.0: the token may hold visible ASCII characters only, and no space: others are lost in HTTP",
    ),
    "a token outside ASCII": (
        token(token="plantéd-planted-planted"),
        "tokens.0: the token may hold visible ASCII characters only, and no space: others are lost in HTTP",
    ),
    "a token that is a number": (token(token=1234567890123456), "tokens.0.token: Input should be a valid string"),
    "a file of a token that is not there": (
        token(token=..., token_file="/nowhere/token"),
        "tokens.0: the file /nowhere/token cannot be read: No such file or directory",
    ),
    "a hash that is none": (token(token=..., sha256="planted"), "tokens.0.sha256: must be 64 hex digits"),
    "a token without a role": (token(role=...), "tokens.0.role: is required"),
    "an unknown role": (token(role="planted"), "tokens.0.role: Input should be 'reader', 'operator' or 'admin'"),
    "a token without databases": (token(databases=...), "tokens.0.databases: is required"),
    "a token of no databases": (
        token(databases=[]),
        "tokens.0.databases: List should have at least 1 item after validation, not 0",
    ),
    "a token of a database that is not declared": (
        token(databases=["ad-none"]),
        "tokens.0.databases: the database ad-none is not declared",
    ),
    "a token that allows what is not there": (
        token(allow=["no-such"]),
        "tokens.0.allow: no engine has an action no-such",
    ),
    "a token that denies what is not there": (
        token(deny=["no-such"]),
        "tokens.0.deny: no engine has an action no-such",
    ),
    "two tokens of one name": (sound(tokens=[token()["tokens"][0]] * 2), "tokens: ops stands there twice"),
    "one token with two names": (
        sound(tokens=[token()["tokens"][0], token(name="other")["tokens"][0]]),
        "tokens.1: other has the same token as another",
    ),
    "a database without an id": (database(id=...), "databases.0.id: is required"),
    "an id of another form": (
        database(id="my-db"),
        "databases.0.id: must be ad- and up to 61 ASCII letters, digits, _ and -",
    ),
    "an id with a newline": (
        database(id="ad-one\n"),
        "databases.0.id: must be ad- and up to 61 ASCII letters, digits, _ and -",
    ),
    "two databases of one id": (
        sound(databases=[{"id": "ad-one", "url": URL}] * 2),
        "databases: ad-one stands there twice",
    ),
    "a database without a URL": (database(url=...), "databases.0: exactly one of url and url_file is needed"),
    "a database with two URLs": (
        database(url_file="/nowhere/url"),
        "databases.0: exactly one of url and url_file is needed",
    ),
    "a file of a URL that is not there": (
        database(url=..., url_file="/nowhere/url"),
        "databases.0: the file /nowhere/url cannot be read: No such file or directory",
    ),
    "a URL of an unknown engine": (
        database(url="oracle://u:planted-password@h/d"),
        "databases.0.url: must begin with one of fake://, fake+tls://",
    ),
    "a URL that is none": (database(url="planted"), "databases.0.url: must begin with one of fake://, fake+tls://"),
    "an empty URL": (database(url=""), "databases.0.url: must begin with one of fake://, fake+tls://"),
    "a URL without a host": (database(url="fake:///app"), "databases.0.url: names no host"),
    "a URL without a logical database": (
        database(url="fake://u:planted-password@h"),
        "databases.0.url: names no logical database (the path of the URL)",
    ),
    "a URL with a bracket in its password": (
        database(url="fake://u:planted[password@h/d"),
        "databases.0.url: is not a URL: a special character in the password must be %-encoded",
    ),
    "a URL with a port that is none": (
        database(url="fake://u:planted-password@h:planted/d"),
        "databases.0.url: is not a URL: a special character in the password must be %-encoded",
    ),
    "created at an odd time": (
        database(created_at="yesterday"),
        "databases.0.created_at: Input should be a valid datetime or date, input is too short",
    ),
    "created without an offset": (
        database(created_at="2026-01-31T08:00:00"),
        "databases.0: created_at needs an offset, such as 2026-01-31T08:00:00Z",
    ),
    "a switched off action that is not there": (
        database(disabled_actions=["no-such"]),
        "databases.0.disabled_actions: Fake has no action no-such",
    ),
    "encryption in words": (
        database(encryption_at_rest="perhaps"),
        "databases.0.encryption_at_rest: Input should be a valid boolean, unable to interpret input",
    ),
    "a list where a text should be": (
        database(app_name=["planted"]),
        "databases.0.app_name: Input should be a valid string",
    ),
    "a text where a list should be": (sound(tokens="planted"), "tokens: Input should be a valid list"),
    "a variable that is not set": (
        database(url="fake://u:${NO_SUCH_VARIABLE}@h/d"),
        "databases.0.url: the variable NO_SUCH_VARIABLE is not set",
    ),
}


VARIABLES: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "databases: none is declared, and DBVALET_DATABASE_URL is not set"),
    "no token": ({"DATABASE_URL": URL}, "tokens: none is declared, and DBVALET_TOKEN is not set"),
    "an empty token": ({"DATABASE_URL": URL, "TOKEN": ""}, "tokens: none is declared, and DBVALET_TOKEN is not set"),
    "no database": ({"TOKEN": TOKEN}, "databases: none is declared, and DBVALET_DATABASE_URL is not set"),
    "a short token": (
        {"DATABASE_URL": URL, "TOKEN": "planted"},
        "DBVALET_TOKEN: the token needs at least 16 characters",
    ),
    "two tokens": (
        {"DATABASE_URL": URL, "TOKEN": TOKEN, "TOKEN_FILE": "/nowhere"},
        "DBVALET_TOKEN: exactly one of DBVALET_TOKEN and DBVALET_TOKEN_FILE is needed",
    ),
    "a token file that is not there": (
        {"DATABASE_URL": URL, "TOKEN_FILE": "/nowhere"},
        "DBVALET_TOKEN: the file /nowhere cannot be read: No such file or directory",
    ),
    "two URLs": (
        {"DATABASE_URL": URL, "DATABASE_URL_FILE": "/nowhere", "TOKEN": TOKEN},
        "DBVALET_DATABASE_URL: exactly one of DBVALET_DATABASE_URL and DBVALET_DATABASE_URL_FILE is needed",
    ),
    "a URL file that is not there": (
        {"DATABASE_URL_FILE": "/nowhere", "TOKEN": TOKEN},
        "DBVALET_DATABASE_URL: the file /nowhere cannot be read: No such file or directory",
    ),
    "a URL of an unknown engine": (
        {"DATABASE_URL": "oracle://u:planted-password@h/d", "TOKEN": TOKEN},
        "DBVALET_DATABASE_URL: must begin with one of fake://, fake+tls://",
    ),
    "an odd id": (
        {"DATABASE_URL": URL, "TOKEN": TOKEN, "DATABASE_ID": "planted"},
        "database_id: must be ad- and up to 61",
    ),
    "an odd address": ({"DATABASE_URL": URL, "TOKEN": TOKEN, "LISTEN": "planted"}, "listen: must be HOST:PORT"),
    "an unknown one": ({"DATABASE_URL": URL, "TOKEN": TOKEN, "TOKNE": "planted"}, "DBVALET_TOKNE: is not known"),
    "a port alone": ({"DATABASE_URL": URL, "TOKEN": TOKEN, "PORT": "9000"}, "DBVALET_PORT: is not known"),
    "tokens that are no JSON": ({"DATABASE_URL": URL, "TOKENS": "planted"}, "DBVALET_TOKENS: must be JSON"),
    "databases that are no JSON": ({"TOKEN": TOKEN, "DATABASES": "[planted"}, "DBVALET_DATABASES: must be JSON"),
    "limits that are no JSON": (
        {"DATABASE_URL": URL, "TOKEN": TOKEN, "LIMITS": "planted"},
        "DBVALET_LIMITS: must be JSON",
    ),
}
