-- The deployment, as one row: what tells whether the database is the one that was last run on, and how often it has been
-- restored from a backup (docs/operations.md, "Backup and restore").
CREATE TABLE deployment (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    -- Which deployment this is: random.
    id           BLOB NOT NULL,
    -- Grows with every start, and while prekeys are handed out.
    progress     INTEGER NOT NULL DEFAULT 0,
    -- Grows with every restore from a backup that the operator has declared.
    epoch        INTEGER NOT NULL DEFAULT 0,
    -- When the last of those was.
    restored_at  INTEGER,
    -- When the operator last said that the database may be used.
    confirmed_at INTEGER,
    -- Somebody has seen that the database is older than it was: no prekeys are handed out until the operator has spoken.
    doubted      INTEGER NOT NULL DEFAULT 0
);
INSERT INTO deployment (one, id) VALUES (1, randomblob(16));

-- The epoch in which it was published. What a device published before a restore may have changed since.
ALTER TABLE bundle ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
-- The newest epoch at whose beginning its stock has been made void.
ALTER TABLE bundle ADD COLUMN void_epoch INTEGER NOT NULL DEFAULT 0;
CREATE INDEX bundle_void ON bundle (void_epoch, account);
