-- The deployment, as one row: what tells whether the database is the one that was last run on, and how often it has been
-- restored from a backup (docs/operations.md, "Backup and restore").
CREATE TABLE deployment (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Which deployment this is: random.
    id           bytea NOT NULL,
    -- Grows with every start, and while prekeys are handed out.
    progress     bigint NOT NULL DEFAULT 0,
    -- Grows with every restore from a backup that the operator has declared.
    epoch        bigint NOT NULL DEFAULT 0,
    -- When the last of those was.
    restored_at  bigint,
    -- When the operator last said that the database may be used.
    confirmed_at bigint,
    -- Somebody has seen that the database is older than it was: no prekeys are handed out until the operator has spoken.
    doubted      boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
INSERT INTO deployment (id) VALUES (uuid_send(gen_random_uuid()));

ALTER TABLE bundle
    -- The epoch in which it was published. What a device published before a restore may have changed since.
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0,
    -- The newest epoch at whose beginning its stock has been made void.
    ADD COLUMN void_epoch bigint NOT NULL DEFAULT 0;
CREATE INDEX bundle_void ON bundle (void_epoch, account);
