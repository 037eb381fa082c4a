"""MongoDB: logical databases."""

from __future__ import annotations

from typing import Any

import pymongo

from agent.demo.accounts import CUSTOM, DATABASE, Deployment
from agent.demo.guide import Guide
from agent.demo.recovery import bring_back
from agent.demo.sessions import mongodb_address

INVOICES = 1000
OWN = {"name": DATABASE, "protected": True}
CREATED = {"name": CUSTOM, "protected": False}


def visit(guide: Guide, deployment: Deployment) -> None:
    """Show the actions on MongoDB.

    Raises: TourFailed
    """
    name = {"database_name": CUSTOM}
    with pymongo.MongoClient[dict[str, Any]](mongodb_address(deployment.port, deployment.password)) as application:
        orders = application[CUSTOM]["orders"]
        guide.done(
            "A logical database is created.", deployment.id, "create-database", name, where=lambda row: row == CREATED
        )
        guide.done(
            "It is really there: MongoDB lists one only when it holds a collection.",
            deployment.id,
            "list-databases",
            where=lambda rows: rows == [OWN, CREATED],
        )
        orders.insert_many([{"amount": 1}, {"amount": 2}])
        guide.check(orders.count_documents({}) == 2, "the application uses it: 2 documents")
        guide.done("It is emptied.", deployment.id, "reset-database", name)
        guide.check(orders.count_documents({}) == 0, "the application's documents are gone")
        guide.done("It is deleted.", deployment.id, "delete-database", name)
        guide.refused(
            "Once more: there is no such database.",
            deployment.id,
            "delete-database",
            name,
            status=404,
            code="not_found",
        )
        guide.refused(
            "MongoDB's own databases are protected.",
            deployment.id,
            "delete-database",
            {"database_name": "admin"},
            status=403,
            code="protected",
        )
        guide.done("The list again.", deployment.id, "list-databases", where=lambda rows: rows == [OWN])
        invoices = application[DATABASE]["invoices"]
        invoices.insert_many([{"number": number} for number in range(INVOICES)])
        invoices.create_index("number", unique=True)
        bring_back(
            guide,
            deployment,
            content=lambda: f"{invoices.count_documents({})} documents, {len(invoices.index_information())} indexes",
            lose=invoices.drop,
        )
