"""The script that makes a least-privilege account for MongoDB."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from engines.engine import GrantsFor

ROLE = "dbvalet"

PRIVILEGES: list[dict[str, Any]] = [
    {"resource": {"cluster": True}, "actions": ["listDatabases"]},
    {
        "resource": {"db": "", "collection": ""},
        "actions": ["collStats", "createCollection", "dropCollection", "dropDatabase", "listCollections"],
    },
    {"resource": {"db": "", "collection": "system.js"}, "actions": ["remove"]},
    {"resource": {"db": "", "collection": "system.profile"}, "actions": ["dropCollection"]},
    {"resource": {"db": "local", "collection": "startup_log"}, "actions": ["find"]},
]

SCRIPT = """\
// Makes the account of dbvalet on a MongoDB deployment. Run it once as a user who has the role userAdminAnyDatabase:
//   mongosh "mongodb://ADMIN@HOST/admin" --file THIS_FILE        (or the old shell: mongo "mongodb://…" THIS_FILE)
// Running it again brings an existing account up to date and sets its password.

const admin = db.getSiblingDB("admin");

// What the actions do, in every logical database; no document of an application can be read or changed with it.
//   list-databases                   listDatabases
//   create-database                  createCollection (a logical database is there once it holds a collection)
//   delete-database                  dropDatabase
//   reset-database                   listCollections, collStats, createCollection, dropCollection;
//                                    remove on system.js, where functions are kept and which cannot be dropped,
//                                    dropCollection on system.profile, where the profiler keeps queries
//   when the server started, first and last: find on local.startup_log (without it these are not shown)
const role = {
  privileges: [
%(privileges)s
  ],
  roles: [],
};
if (admin.getRole(%(role)s)) {
  admin.updateRole(%(role)s, role);
} else {
  admin.createRole(Object.assign({role: %(role)s}, role));
}

const account = {pwd: %(password)s, roles: [{role: %(role)s, db: "admin"}]};
if (admin.getUser(%(user)s)) {
  admin.updateUser(%(user)s, account);
} else {
  admin.createUser(Object.assign({user: %(user)s}, account));
}

// In dbvalet's configuration (characters other than letters and digits %%-encoded):
//   url: mongodb://USER:PASSWORD@HOST:27017/%(database)s?authSource=admin
"""


def grants(wanted: GrantsFor) -> str:
    """Write the script, for mongosh and for the old mongo shell."""
    return SCRIPT % {
        "privileges": "\n".join(f"    {json.dumps(privilege)}," for privilege in PRIVILEGES),
        "role": quoted(ROLE),
        "user": quoted(wanted.user),
        "password": quoted(wanted.password or "CHANGE-ME"),
        "database": quote(wanted.database, safe=""),
    }


def commands(wanted: GrantsFor) -> list[dict[str, Any]]:
    """Give the two commands on `admin` that the script comes to on a deployment without the account.

    For where there is no MongoDB shell.
    """
    role = {"createRole": ROLE, "privileges": PRIVILEGES, "roles": []}
    account = {
        "createUser": wanted.user,
        "pwd": wanted.password or "CHANGE-ME",
        "roles": [{"role": ROLE, "db": "admin"}],
    }
    return [role, account]


def quoted(text: str) -> str:
    """Write a JavaScript string: JSON in ASCII is one."""
    return json.dumps(text)
