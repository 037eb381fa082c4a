"""Make objects of every kind, and read all that a logical database holds, through the bare driver."""

from collections.abc import Iterator
from typing import Any

from tests.live.mysql.conftest import Root, quote

Content = dict[tuple[str, ...], Any]

OF_BOTH = (
    "CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20)) AUTO_INCREMENT=100 CHARSET=utf8mb4",
    "INSERT INTO parent VALUES (1, 'a'), (2, 'ü€😀')",
    """CREATE TABLE child (
         id INT PRIMARY KEY, p INT, CONSTRAINT positive CHECK (id > 0),
         CONSTRAINT named FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE,
         FOREIGN KEY (p) REFERENCES parent (id)
       ) CHARSET=latin1""",
    "INSERT INTO child VALUES (1, 1), (2, 2)",
    "CREATE TABLE derived (a INT, b INT AS (a * 2) STORED, c INT AS (a + 1) VIRTUAL, KEY (b))",
    "INSERT INTO derived (a) VALUES (1), (2)",
    "CREATE TABLE hidden (a INT, b INT INVISIBLE DEFAULT 5, KEY (a))",
    "INSERT INTO hidden (a, b) VALUES (1, 7), (2, 8)",
    """CREATE TABLE parts (id INT, d DATE) PARTITION BY RANGE (id)
         (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)""",
    "INSERT INTO parts VALUES (1, '2020-01-01'), (50, '0000-00-00')",
    """CREATE TABLE kinds (
         d DOUBLE, bits BIT(9), b BLOB, t TEXT, g GEOMETRY, ts TIMESTAMP(6) NULL, j JSON, vb VARBINARY(10),
         n DECIMAL(30,10), e ENUM('x', 'ü'), y YEAR, ti TIME(3), f FLOAT
       ) CHARSET=utf8mb4""",
    """INSERT INTO kinds VALUES (
         0.1 + 0.2, b'100010101', x'00ff0d0a5c27', 'it''s \\\\ \\r\\n \\0 x', ST_GeomFromText('POINT(1 2)'),
         '2020-01-01 00:00:00.123456', '{"a": [1.0, "ü"]}', x'0001', 12345678901234567890.0123456789, 'ü', 2026,
         '-100:00:00.125', 0.5)""",
    "INSERT INTO kinds (t, b) VALUES (NULL, NULL), ('', '')",
    "CREATE TABLE words (a INT, b TEXT, FULLTEXT (b)) ENGINE=MyISAM",
    "INSERT INTO words VALUES (3, 'some words')",
    """CREATE TABLE searched (
         a INT PRIMARY KEY, b TEXT, g POINT NOT NULL, FULLTEXT (b), SPATIAL INDEX (g)
       ) ENGINE=InnoDB ROW_FORMAT=COMPRESSED COMMENT='two\\r\\nlines'""",
    "INSERT INTO searched VALUES (1, 'some words', ST_GeomFromText('POINT(1 2)'))",
    "CREATE TABLE volatile (a INT) ENGINE=MEMORY",
    "INSERT INTO volatile VALUES (3)",
    "CREATE TABLE `odd ``name-%s.;` (`a b` INT COMMENT 'it''s\\nnew line')",
    "INSERT INTO `odd ``name-%s.;` VALUES (1)",
    "CREATE TABLE log (txt TEXT)",
    "CREATE TABLE nothing_in_it (a INT)",
    "CREATE FUNCTION f1(x INT) RETURNS INT DETERMINISTIC SQL SECURITY INVOKER RETURN x + 1",
    # Each needs one whose name comes later.
    "CREATE VIEW z_first AS SELECT id, f1(id) AS y FROM parent",
    "CREATE VIEW m_second AS SELECT * FROM z_first WHERE y > 0",
    """CREATE DEFINER='somebody'@'%' SQL SECURITY INVOKER VIEW a_third AS
         SELECT m_second.id FROM m_second JOIN child USING (id) WITH CASCADED CHECK OPTION""",
    "CREATE TRIGGER z_acts_first BEFORE INSERT ON parent FOR EACH ROW SET NEW.name = CONCAT(NEW.name, '!')",
    "CREATE TRIGGER {name}.a_acts_second BEFORE INSERT ON {name}.parent FOR EACH ROW INSERT INTO log VALUES ('ü')",
    "CREATE TRIGGER after_it AFTER DELETE ON child FOR EACH ROW INSERT INTO {name}.log VALUES (OLD.id)",
    """CREATE EVENT soon ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01 00:00:00' COMMENT 'ON COMPLETION PRESERVE ENABLE'
         DO INSERT INTO log VALUES ('event')""",
    "CREATE EVENT never ON SCHEDULE EVERY 2 HOUR ON COMPLETION PRESERVE DISABLE DO BEGIN SELECT 1; SELECT 2; END",
)

ANSI_PROCEDURE = """CREATE DEFINER='somebody'@'%' PROCEDURE "it's `p`"(OUT "x" INT) COMMENT 'c' BEGIN
-- Dump completed
INSERT INTO "log" VALUES ('a\\'); SELECT 5 INTO x; /* a ;; b \r\n */
END"""

OF_MARIADB = (
    "CREATE SEQUENCE numbers START 10 INCREMENT 5 CACHE 4",
    "SELECT NEXTVAL(numbers)",
    "CREATE TABLE numbered (id INT DEFAULT NEXTVAL(numbers), x INT)",
    "INSERT INTO numbered (x) VALUES (1), (2)",
    "SET sql_mode = 'ORACLE'",
    "CREATE PACKAGE pkg AS FUNCTION g RETURN INT; END",
    "CREATE PACKAGE BODY pkg AS FUNCTION g RETURN INT AS BEGIN RETURN 4; END; END",
    "SET sql_mode = ''",
    """CREATE AGGREGATE FUNCTION total(x INT) RETURNS INT BEGIN
         DECLARE s INT DEFAULT 0;
         DECLARE CONTINUE HANDLER FOR NOT FOUND RETURN s;
         LOOP FETCH GROUP NEXT ROW; SET s = s + x; END LOOP;
       END""",
)

OF_MYSQL = (
    "CREATE LIBRARY lib LANGUAGE JAVASCRIPT AS $$ export function f(n) { return n } $$",
    "CREATE TABLE computed (a INT, b INT, KEY k ((a + b)))",
    "INSERT INTO computed VALUES (1, 2)",
    "ANALYZE TABLE computed UPDATE HISTOGRAM ON a WITH 4 BUCKETS",
)

HISTORY = (
    "CREATE TABLE past (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING",
    "INSERT INTO past VALUES (1, 1), (2, 2), (3, 3)",
    "UPDATE past SET b = 5 WHERE a = 1",
    "DELETE FROM past WHERE a = 2",
)


def make_everything(root: Root, name: str) -> None:
    """Fill a logical database; its character set changes on the way, as that of old ones did."""
    root.run("DROP USER IF EXISTS 'somebody'@'%'", "CREATE USER 'somebody'@'%' IDENTIFIED BY 'of no rights'")
    root.run(f"ALTER DATABASE {name} CHARACTER SET latin1", f"USE {name}", "SET sql_mode = ''")
    of_flavour = OF_MARIADB if root.is_mariadb else OF_MYSQL
    root.run(*(statement.replace("{name}", name) for statement in (*OF_BOTH, *of_flavour)))
    root.run("SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'", ANSI_PROCEDURE, "SET sql_mode = ''")
    run_in_latin1(root, "CREATE PROCEDURE accented() SELECT 'é' AS `ç`")
    root.run(f"ALTER DATABASE {name} CHARACTER SET utf8mb4", "USE information_schema", "SET sql_mode = DEFAULT")


def run_in_latin1(root: Root, statement: str) -> None:
    """Run a statement as an application does that knows no Unicode."""
    root.run("SET NAMES latin1")
    root.connection.query(statement.encode("latin1"))  # pyright: ignore[reportArgumentType]  # bytes go as they are
    root.run("SET NAMES utf8mb4")


def content_of(root: Root, name: str) -> Content:
    """Read all that a logical database holds: each thing under its kind and name."""
    root.run(f"USE {quote(name)}")
    content: Content = {("database",): root.rows(f"SHOW CREATE DATABASE {quote(name)}")}
    for table, kind in root.rows(f"SHOW FULL TABLES FROM {quote(name)}"):
        content[kind, table] = root.rows(f"SHOW CREATE TABLE {quote(table)}")
        if kind != "VIEW":
            content["rows", table] = sorted(rows_of(root, table), key=repr)
            if kind != "SEQUENCE":
                content["checksum", table] = root.rows(f"CHECKSUM TABLE {quote(table)}")[0][1]
    for kind, each in objects_of(root, name):
        row = root.rows(f"SHOW CREATE {kind} {quote(each)}")[0]
        content[kind, each] = row[:6]  # after it comes when a trigger was made
    content["triggers",] = root.rows(
        "SELECT EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, TRIGGER_NAME, DEFINER, SQL_MODE"
        " FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s ORDER BY 1, 2, 3, 4",
        name,
    )
    content["views",] = root.rows(
        "SELECT TABLE_NAME, IS_UPDATABLE, CHECK_OPTION, DEFINER, SECURITY_TYPE"
        " FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s ORDER BY 1",
        name,
    )
    if not root.is_mariadb:
        content["histograms",] = root.rows(
            "SELECT TABLE_NAME, COLUMN_NAME, JSON_REMOVE(HISTOGRAM, '$.\"last-updated\"')"
            " FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME = %s ORDER BY 1, 2",
            name,
        )
    root.run("USE information_schema")
    return content


def rows_of(root: Root, table: str) -> list[tuple[Any, ...]]:
    columns = [row[0] for row in root.rows(f"SHOW COLUMNS FROM {quote(table)}")]
    named = ", ".join(map(quote, columns))
    versioned = root.is_mariadb and "SYSTEM VERSIONING" in root.rows(f"SHOW CREATE TABLE {quote(table)}")[0][1]
    extra = ", row_start, row_end" if versioned else ""
    of = " FOR SYSTEM_TIME ALL" if versioned else ""
    return root.rows(f"SELECT {named}{extra} FROM {quote(table)}{of}")


def objects_of(root: Root, name: str) -> Iterator[tuple[str, str]]:
    for listed in (
        "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s",
        "SELECT 'TRIGGER', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s",
        "SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s",
    ):
        yield from root.rows(listed, name)
    if not root.is_mariadb and root.live.version_tuple >= (9, 2):
        yield from root.rows(
            "SELECT 'LIBRARY', LIBRARY_NAME FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = %s", name
        )
