"""MySQL and MariaDB: logical databases and the SQL mode."""

from engines.engine import Engine
from engines.mysql.grants import grants
from engines.mysql.requirements import REQUIREMENTS
from engines.versions import Versions

ENGINE = Engine(
    name="mysql",
    title="MySQL",
    schemes=("mysql", "mariadb"),
    default_port=3306,
    package="engines.mysql",
    server="engines.mysql.server:MySQLServer",
    requirements=REQUIREMENTS,
    grants=grants,
    backups="engines.mysql.backup:MySQLBackups",
    health="engines.mysql.health:MySQLHealth",
    versions={"mysql": Versions(oldest=(5, 7)), "mariadb": Versions(oldest=(10, 5))},
    users="engines.mysql.users:MySQLUsers",
    creates="create-database",
)

__all__ = ["ENGINE"]
