"""The script that makes a least-privilege account for MongoDB."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from engines.engine import GrantsFor
from engines.health import Route

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

BACKUP_ROLE = "dbvalet_backups"

BACKUP_ACTIONS = (
    "bypassDocumentValidation",
    "convertToCapped",
    "createCollection",
    "createIndex",
    "dropCollection",
    "find",
    "insert",
    "listCollections",
    "listIndexes",
    "renameCollectionSameDB",
    "update",
)
"""What backups and restores do with the collections of the deployment's own logical database."""

BACKUP_FUNCTION_ACTIONS = ("find", "insert", "remove", "update")
"""And with its functions, which are in system.js."""

USER_ROLE = "dbvalet_users"

USER_ACTIONS = ("changePassword", "createUser", "dropUser", "grantRole", "viewUser")

ENDS_SESSIONS = "killAnySession"

FIGURE_ROLE = "dbvalet_figures"

FIGURE_ACTIONS: Mapping[Route, tuple[str, ...]] = {
    "metrics": ("serverStatus", "hostInfo", "dbStats"),
    "logs": ("getLog",),
}
"""What the routes ask the server; the built-in role clusterMonitor has all of it, and much more."""

CLUSTER_ACTIONS = ("serverStatus", "hostInfo", "getLog")
"""Those of them that are of the whole server."""

SCRIPT = """\
// Makes the account of dbvalet on a MongoDB deployment. Run it once as a user who has the role userAdminAnyDatabase:
//   mongosh "mongodb://ADMIN@HOST/admin" --file THIS_FILE        (or the old shell: mongo "mongodb://…" THIS_FILE)
// Running it again brings an existing account up to date%(again)s.

const admin = db.getSiblingDB("admin");
const user = %(user)s;
// null without --password-file of `dbvalet grants`: then the password stays as it is, and no account is made.
const password = %(password)s;
if (password === null && !admin.getUser(user)) {
  throw new Error("There is no such account: write this script with --password-file.");
}

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

// Optional. Backups and restores read and write every document of the logical database, so this is a role of its own:
// say true here to have it made and given to the account.
const backups = false;
const backupRole = {
  privileges: [
%(backup_privileges)s
  ],
  roles: [],
};
if (backups) {
  if (admin.getRole(%(backup_role)s)) {
    admin.updateRole(%(backup_role)s, backupRole);
  } else {
    admin.createRole(Object.assign({role: %(backup_role)s}, backupRole));
  }
}

// Optional. Who makes users of the logical database can give them, and itself, every role on it: say true here to have
// this role made and given to the account.
const users = false;
const userRole = {
  privileges: [
%(user_privileges)s
  ],
  roles: [],
};
if (users) {
  if (admin.getRole(%(user_role)s)) {
    admin.updateRole(%(user_role)s, userRole);
  } else {
    admin.createRole(Object.assign({role: %(user_role)s}, userRole));
  }
}

// Optional. The routes that show how the server does: metrics (serverStatus, hostInfo, dbStats) and logs (getLog). A
// log may hold statements with what was written in them. Say true here to have this role made and given to the account;
// the built-in role clusterMonitor would do too, and may more.
const figures = false;
const figureRole = {
  privileges: [
%(figure_privileges)s
  ],
  roles: [],
};
if (figures) {
  if (admin.getRole(%(figure_role)s)) {
    admin.updateRole(%(figure_role)s, figureRole);
  } else {
    admin.createRole(Object.assign({role: %(figure_role)s}, figureRole));
  }
}

const roles = [{role: %(role)s, db: "admin"}].concat(
  backups ? [{role: %(backup_role)s, db: "admin"}] : [],
  users ? [{role: %(user_role)s, db: "admin"}] : [],
  figures ? [{role: %(figure_role)s, db: "admin"}] : []
);
const account = password === null ? {roles: roles} : {pwd: password, roles: roles};
if (admin.getUser(user)) {
  admin.updateUser(user, account);
} else {
  admin.createUser(Object.assign({user: user}, account));
}

// In dbvalet's configuration (characters other than letters and digits %%-encoded):
//   url: mongodb://USER:PASSWORD@HOST:27017/%(database)s?authSource=admin
"""


def grants(wanted: GrantsFor) -> str:
    """Write the script, for mongosh and for the old mongo shell."""
    return SCRIPT % {
        "privileges": "\n".join(f"    {json.dumps(privilege)}," for privilege in PRIVILEGES),
        "role": quoted(ROLE),
        "backup_privileges": "\n".join(f"    {json.dumps(each)}," for each in backup_privileges(wanted.database)),
        "backup_role": quoted(BACKUP_ROLE),
        "user_privileges": "\n".join(f"    {json.dumps(each)}," for each in user_privileges(wanted.database)),
        "user_role": quoted(USER_ROLE),
        "figure_privileges": "\n".join(f"    {json.dumps(each)}," for each in figure_privileges(wanted.database)),
        "figure_role": quoted(FIGURE_ROLE),
        "user": quoted(wanted.user),
        "again": " and sets its password" if wanted.password else "",
        "password": quoted(wanted.password) if wanted.password else "null",
        "database": quote(wanted.database, safe=""),
    }


def commands(wanted: GrantsFor) -> list[dict[str, Any]]:
    """Give the two commands on `admin` that the script comes to on a deployment without the account.

    For where there is no MongoDB shell.

    Raises: ValueError, without a password
    """
    if not wanted.password:
        raise ValueError("A new account needs a password.")
    role = {"createRole": ROLE, "privileges": PRIVILEGES, "roles": []}
    account = {
        "createUser": wanted.user,
        "pwd": wanted.password,
        "roles": [{"role": ROLE, "db": "admin"}],
    }
    return [role, account]


def backup_privileges(database: str) -> list[dict[str, Any]]:
    """Give the privileges of the optional role for backups and restores of a logical database."""
    return [
        {"resource": {"db": database, "collection": ""}, "actions": [*BACKUP_ACTIONS]},
        {"resource": {"db": database, "collection": "system.js"}, "actions": [*BACKUP_FUNCTION_ACTIONS]},
    ]


def backup_commands(wanted: GrantsFor) -> list[dict[str, Any]]:
    """Give the two commands on `admin` that bring what backups and restores need to an account that is there."""
    return [
        {"createRole": BACKUP_ROLE, "privileges": backup_privileges(wanted.database), "roles": []},
        {"grantRolesToUser": wanted.user, "roles": [{"role": BACKUP_ROLE, "db": "admin"}]},
    ]


def user_privileges(database: str) -> list[dict[str, Any]]:
    """Give the privileges of the optional role for users of a logical database."""
    return [
        {"resource": {"db": database, "collection": ""}, "actions": [*USER_ACTIONS]},
        {"resource": {"cluster": True}, "actions": [ENDS_SESSIONS]},
    ]


def user_commands(wanted: GrantsFor) -> list[dict[str, Any]]:
    """Give the two commands on `admin` that let an account that is there manage users."""
    return [
        {"createRole": USER_ROLE, "privileges": user_privileges(wanted.database), "roles": []},
        {"grantRolesToUser": wanted.user, "roles": [{"role": USER_ROLE, "db": "admin"}]},
    ]


def user_remedy(user: str, database: str) -> str:
    """Say what lets an account manage users."""
    return (
        f"grant {quoted(user)} the role userAdmin on {quoted(database)} and an action killAnySession on the cluster; or"
        f' the role "{USER_ROLE}", made by the script that "dbvalet grants mongodb" writes when its `users` says true.'
    )


def figure_privileges(database: str) -> list[dict[str, Any]]:
    """Give the privileges of the optional role for metrics and logs."""
    return [
        {"resource": {"cluster": True}, "actions": [*CLUSTER_ACTIONS]},
        {"resource": {"db": database, "collection": ""}, "actions": ["dbStats"]},
    ]


def figure_remedy(user: str, database: str) -> str:
    """Say what lets an account show metrics and logs."""
    return (
        f'grant {quoted(user)} the role clusterMonitor; or the role "{FIGURE_ROLE}", which may less, made by the '
        f'script that "dbvalet grants mongodb --database {database}" writes when its `figures` says true.'
    )


def backup_remedy(user: str, database: str) -> str:
    """Say what gives an account what backups and restores need."""
    return (
        f"grant {quoted(user)} the roles readWrite and dbAdmin on {quoted(database)}; or the role "
        f'"{BACKUP_ROLE}", which may less, made by the script that "dbvalet grants mongodb" writes when its '
        "`backups` says true."
    )


def quoted(text: str) -> str:
    """Write a JavaScript string: JSON in ASCII is one."""
    return json.dumps(text)
