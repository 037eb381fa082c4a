"""MySQL and MariaDB: logical databases and the SQL mode."""

from __future__ import annotations

from typing import Any

import pymysql
from pymysql.constants import ER

from agent.demo.accounts import APPLICATION, CUSTOM, DATABASE, Deployment
from agent.demo.guide import Guide
from agent.demo.recovery import bring_back
from agent.demo.sessions import mysql_session

FILL = """
INSERT INTO app.invoices (amount)
WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
SELECT n FROM numbers
"""
MODE = "STRICT_TRANS_TABLES,NO_ZERO_DATE"
OWN = {"name": DATABASE, "protected": True}
CREATED = {"name": CUSTOM, "protected": False}


def visit(guide: Guide, deployment: Deployment) -> None:
    """Show the actions on MySQL.

    Raises: TourFailed
    """
    _logical_databases(guide, deployment)
    _sql_mode(guide, deployment)
    _run(deployment, "CREATE TABLE app.invoices (id INT AUTO_INCREMENT PRIMARY KEY, amount INT)")
    _run(deployment, FILL)
    bring_back(
        guide,
        deployment,
        content=lambda: _invoices(deployment),
        lose=lambda: _run(deployment, "DROP TABLE app.invoices"),
    )


def _invoices(deployment: Deployment) -> str:
    if not _run(deployment, "SHOW TABLES FROM app"):
        return "no table invoices"
    ((rows, amount),) = _run(deployment, "SELECT COUNT(*), SUM(amount) FROM app.invoices")
    return f"{rows} rows, {amount} in all"


def _logical_databases(guide: Guide, deployment: Deployment) -> None:
    name = {"database_name": CUSTOM}
    guide.done(
        "A logical database is created.", deployment.id, "create-database", name, where=lambda row: row == CREATED
    )
    _run(deployment, "CREATE TABLE shop.orders (id INT PRIMARY KEY)")
    _run(deployment, "INSERT INTO shop.orders VALUES (1), (2)")
    guide.check(_run(deployment, "SELECT COUNT(*) FROM shop.orders") == [(2,)], "the application uses it: 2 rows")
    guide.done(
        "It is in the list, beside the deployment's own, which is protected.",
        deployment.id,
        "list-databases",
        where=lambda rows: rows == [OWN, CREATED],
    )
    guide.refused("Its name is taken.", deployment.id, "create-database", name, status=409, code="already_exists")
    guide.done("It is deleted, with what is in it.", deployment.id, "delete-database", name)
    guide.check(_is_gone(deployment), "the application finds nothing of it")
    guide.refused(
        "The deployment's own logical database is protected.",
        deployment.id,
        "delete-database",
        {"database_name": DATABASE},
        status=403,
        code="protected",
    )
    _run(deployment, "CREATE TABLE app.drafts (id INT)")
    guide.done("But it can be emptied.", deployment.id, "reset-database", {"database_name": DATABASE})
    guide.check(_run(deployment, "SHOW TABLES FROM app") == [], "the application's table is gone, its database is not")
    guide.done("The list again.", deployment.id, "list-databases", where=lambda rows: rows == [OWN])


def _sql_mode(guide: Guide, deployment: Deployment) -> None:
    guide.done(
        "The SQL mode that new sessions begin with.", deployment.id, "get-sqlmode", where=lambda mode: mode != MODE
    )
    guide.done("It is replaced.", deployment.id, "set-sqlmode", MODE)
    guide.done("It is read again.", deployment.id, "get-sqlmode", where=lambda mode: mode == MODE)
    guide.check(_run(deployment, "SELECT @@SESSION.sql_mode") == [(MODE,)], "a new session of the application has it")
    why = guide.refused(
        "A mode that this server does not know: the answer lists the valid ones.",
        deployment.id,
        "set-sqlmode",
        "NO_ZERO_DATES",
        status=422,
        code="invalid_params",
    )
    guide.check("ONLY_FULL_GROUP_BY" in why, "the refusal names the valid modes")
    guide.check(_run(deployment, "SELECT @@GLOBAL.sql_mode") == [(MODE,)], "the mode is as it was")


def _run(deployment: Deployment, statement: str) -> list[tuple[Any, ...]]:
    with mysql_session(deployment.port, APPLICATION, deployment.password) as session, session.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def _is_gone(deployment: Deployment) -> bool:
    try:
        _run(deployment, "SHOW TABLES FROM shop")
    except pymysql.err.OperationalError as problem:
        return bool(problem.args[0] == ER.BAD_DB_ERROR)
    return False
