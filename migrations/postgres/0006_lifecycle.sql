-- The life cycle of devices: when each was seen, since when it lacks a bundle, and which are in quarantine.

-- One row for each device in a list in force and for each one in quarantine. A listed device without a row is one that an
-- older program has listed; it gets its row with the next change of the list.
CREATE TABLE device_life (
    account          bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol         smallint NOT NULL,
    device           integer NOT NULL,
    listed_at        bigint NOT NULL,
    -- The last sign of life, to within the granularity at which they are written.
    seen_at          bigint NOT NULL,
    -- NULL: it has a bundle.
    no_bundle_since  bigint,
    -- NULL: it is in the list in force.
    quarantined_at   bigint,
    -- 1: no bundle; 2: unseen; 3: an operator.
    cause            smallint,
    -- Of a quarantined one: what the list said of it, for the day on which it comes back.
    label            text,
    label_signature  text,
    PRIMARY KEY (account, protocol, device)
) WITH (fillfactor = 80);
-- What is due next is read in these orders.
CREATE INDEX device_life_seen ON device_life (seen_at, account, protocol, device) WHERE quarantined_at IS NULL;
CREATE INDEX device_life_no_bundle ON device_life (no_bundle_since, account, protocol, device)
    WHERE quarantined_at IS NULL AND no_bundle_since IS NOT NULL;
CREATE INDEX device_life_quarantine ON device_life (quarantined_at, account, protocol, device)
    WHERE quarantined_at IS NOT NULL;

-- Nobody has been watched so far: every device counts as seen now.
INSERT INTO device_life (account, protocol, device, listed_at, seen_at, no_bundle_since)
SELECT d.account, d.protocol, d.device, l.updated_at, moment.now, CASE WHEN b.payload IS NULL THEN moment.now END
FROM (SELECT (extract(epoch FROM now()) * 1000000)::bigint AS now) moment, listed_device d
JOIN device_list l ON l.account = d.account AND l.protocol = d.protocol
LEFT JOIN bundle b ON b.account = d.account AND b.protocol = d.protocol AND b.device = d.device;

-- Whether anybody has been there to see them: one row.
CREATE TABLE device_watch (
    id      smallint PRIMARY KEY CHECK (id = 1),
    -- Watched without a long pause since then, and the last time that somebody said so.
    since   bigint NOT NULL,
    last_at bigint NOT NULL
);
