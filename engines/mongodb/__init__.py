"""MongoDB 4.2 to 6.0."""

from engines.engine import Engine
from engines.mongodb.grants import grants
from engines.mongodb.requirements import REQUIREMENTS
from engines.versions import Versions

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="mongodb",
    title="MongoDB",
    schemes=("mongodb", "mongodb+srv"),
    default_port=27017,
    package="engines.mongodb",
    server="engines.mongodb.server:MongoServer",
    requirements=REQUIREMENTS,
    grants=grants,
    backups="engines.mongodb.backup:MongoBackups",
    health="engines.mongodb.health:MongoHealth",
    versions={"mongodb": Versions(oldest=(4, 2))},
    users="engines.mongodb.users:MongoUsers",
    creates="create-database",
)
