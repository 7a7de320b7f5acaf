-- The life cycle of devices: when each was seen, since when it lacks a bundle, and which are in quarantine.
--
-- The tables are those of the schema for PostgreSQL.

-- One row for each device in a list in force and for each one in quarantine.
CREATE TABLE device_life (
    account          INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol         INTEGER NOT NULL,
    device           INTEGER NOT NULL,
    listed_at        INTEGER NOT NULL,
    -- The last sign of life, to within the granularity at which they are written.
    seen_at          INTEGER NOT NULL,
    -- NULL: it has a bundle.
    no_bundle_since  INTEGER,
    -- NULL: it is in the list in force.
    quarantined_at   INTEGER,
    -- 1: no bundle; 2: unseen; 3: an operator.
    cause            INTEGER,
    -- Of a quarantined one: what the list said of it, for the day on which it comes back.
    label            TEXT,
    label_signature  TEXT,
    PRIMARY KEY (account, protocol, device)
) WITHOUT ROWID;
-- What is due next is read in these orders.
CREATE INDEX device_life_seen ON device_life (seen_at, account, protocol, device) WHERE quarantined_at IS NULL;
CREATE INDEX device_life_no_bundle ON device_life (no_bundle_since, account, protocol, device)
    WHERE quarantined_at IS NULL AND no_bundle_since IS NOT NULL;
CREATE INDEX device_life_quarantine ON device_life (quarantined_at, account, protocol, device)
    WHERE quarantined_at IS NOT NULL;

-- Nobody has been watched so far: every device counts as seen now.
INSERT INTO device_life (account, protocol, device, listed_at, seen_at, no_bundle_since)
SELECT d.account, d.protocol, d.device, l.updated_at, moment.now, CASE WHEN b.payload IS NULL THEN moment.now END
FROM (SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS now) moment, listed_device d
JOIN device_list l ON l.account = d.account AND l.protocol = d.protocol
LEFT JOIN bundle b ON b.account = d.account AND b.protocol = d.protocol AND b.device = d.device;

-- Whether anybody has been there to see them: one row.
CREATE TABLE device_watch (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    -- Watched without a long pause since then, and the last time that somebody said so.
    since   INTEGER NOT NULL,
    last_at INTEGER NOT NULL
);
