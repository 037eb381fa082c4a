CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE memory (
    database_id TEXT NOT NULL,
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (database_id, "key")
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE database_settings (
    database_id TEXT NOT NULL,
    periodic_backups_enabled BOOLEAN NOT NULL,
    periodic_backups_scheduled_at TEXT NOT NULL,
    scheduled_since DATETIME,
    maintenance_weekday_utc INTEGER,
    maintenance_starting_hour_utc INTEGER,
    PRIMARY KEY (database_id)
);
CREATE TABLE operations (
    id TEXT NOT NULL,
    database_id TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    progress INTEGER NOT NULL,
    step TEXT NOT NULL,
    error TEXT,
    params TEXT NOT NULL,
    notes TEXT NOT NULL,
    started_by TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME,
    owner TEXT,
    heartbeat BIGINT NOT NULL,
    clean_up_due BOOLEAN NOT NULL,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX one_open_operation ON operations (database_id) WHERE finished_at IS NULL;
CREATE INDEX operations_of_a_database ON operations (database_id, created_at);
CREATE TABLE backups (
    id TEXT NOT NULL,
    database_id TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    name TEXT NOT NULL,
    method TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME,
    size BIGINT,
    sha256 TEXT,
    manifest TEXT,
    logical_database TEXT,
    PRIMARY KEY (id)
);
CREATE INDEX backups_of_a_database ON backups (database_id, created_at);
CREATE TABLE schedule_slots (
    database_id TEXT NOT NULL,
    slot DATETIME NOT NULL,
    operation_id TEXT NOT NULL,
    PRIMARY KEY (database_id, slot)
);
CREATE TABLE timelines (
    database_id TEXT NOT NULL,
    system_identifier TEXT NOT NULL,
    timeline INTEGER NOT NULL,
    parent INTEGER,
    forked_at_lsn TEXT,
    began_at DATETIME NOT NULL,
    ended_at DATETIME,
    PRIMARY KEY (database_id, system_identifier, timeline)
);
CREATE TABLE markers (
    database_id TEXT NOT NULL,
    committed_at DATETIME NOT NULL,
    timeline INTEGER NOT NULL,
    lsn TEXT NOT NULL,
    archived BOOLEAN NOT NULL,
    PRIMARY KEY (database_id, committed_at)
);
CREATE TABLE audit (
    sequence BIGINT NOT NULL,
    database_id TEXT,
    line TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (sequence)
);
CREATE INDEX audit_of_a_database ON audit (database_id, sequence);
CREATE TABLE audit_head (
    id INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO audit_head (id, sequence, digest) VALUES (1, 0, '');
CREATE TABLE idempotency_keys (
    who TEXT NOT NULL,
    "key" TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    owner TEXT NOT NULL,
    begun_at DATETIME NOT NULL,
    before TEXT,
    answer TEXT,
    PRIMARY KEY (who, "key")
);
CREATE INDEX keys_by_age ON idempotency_keys (begun_at);
INSERT INTO alembic_version (version_num) VALUES ('0004')
