-- Accounts, and the directory: device lists, bundles, one-time prekeys and who got them.
--
-- The tables are those of the schema for PostgreSQL. Moments are microseconds since 1970; protocols are 1 (legacy) and
-- 2 (omemo2).

CREATE TABLE account (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    jid           TEXT NOT NULL UNIQUE,
    -- The archive's next sequence number.
    next_sequence INTEGER NOT NULL DEFAULT 1,
    -- The time of the archive's newest copy, if there was one; a later copy is never older than it.
    last_at       INTEGER,
    created_at    INTEGER NOT NULL
);

-- A list in force; it may be empty.
CREATE TABLE device_list (
    account    INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (account, protocol)
) WITHOUT ROWID;

CREATE TABLE listed_device (
    account         INTEGER NOT NULL,
    protocol        INTEGER NOT NULL,
    device          INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    label           TEXT,
    label_signature TEXT,
    PRIMARY KEY (account, protocol, device),
    FOREIGN KEY (account, protocol) REFERENCES device_list ON DELETE CASCADE
) WITHOUT ROWID;

-- What a session of the owner last saw of the list: the base of the three-way merge.
CREATE TABLE list_seen (
    account  INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol INTEGER NOT NULL,
    resource TEXT NOT NULL,
    -- Their ids, in decimal, with a space between.
    devices  TEXT NOT NULL,
    seen_at  INTEGER NOT NULL,
    PRIMARY KEY (account, protocol, resource)
) WITHOUT ROWID;

CREATE TABLE bundle (
    account                 INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol                INTEGER NOT NULL,
    device                  INTEGER NOT NULL,
    item_id                 TEXT NOT NULL,
    -- The element as published; NULL once the bundle was retracted. The row stays, for the two columns after it.
    payload                 BLOB,
    identity_key            BLOB NOT NULL,
    -- The place in the queue that the next new prekey of this device gets.
    next_upload             INTEGER NOT NULL,
    signed_prekey_id        INTEGER NOT NULL,
    signed_prekey           BLOB NOT NULL,
    signed_prekey_signature BLOB NOT NULL,
    published_at            INTEGER NOT NULL,
    PRIMARY KEY (account, protocol, device)
);

-- A one-time prekey, known by its key and not its id. A row with issued_at is a tombstone: it is never deleted, so the
-- key never counts as unissued again. A row without is in stock, and is deleted when its device withdraws the key.
CREATE TABLE prekey (
    account        INTEGER NOT NULL,
    protocol       INTEGER NOT NULL,
    device         INTEGER NOT NULL,
    key            BLOB NOT NULL,
    prekey_id      INTEGER NOT NULL,
    upload         INTEGER NOT NULL,
    issued_at      INTEGER,
    last_issued_at INTEGER,
    -- When a key exchange that names it was seen: it is never given again.
    consumed_at    INTEGER,
    -- Not in the bundle now in force.
    withdrawn      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, protocol, device, key)
) WITHOUT ROWID;
CREATE INDEX prekey_stock ON prekey (account, protocol, device, upload) WHERE issued_at IS NULL;
-- What the last resort is chosen from: never more rows than a bundle has prekeys.
CREATE INDEX prekey_issued ON prekey (account, protocol, device, last_issued_at, upload)
    WHERE issued_at IS NOT NULL AND NOT withdrawn;

-- What each requester got last, for the repeat window.
CREATE TABLE prekey_claim (
    account      INTEGER NOT NULL,
    protocol     INTEGER NOT NULL,
    device       INTEGER NOT NULL,
    requester    TEXT NOT NULL,
    key          BLOB NOT NULL,
    -- A repeat is the same answer only as long as the device's identity is the same.
    identity_key BLOB NOT NULL,
    last_resort  INTEGER NOT NULL,
    claimed_at   INTEGER NOT NULL,
    PRIMARY KEY (account, protocol, device, requester)
) WITHOUT ROWID;
CREATE INDEX prekey_claim_age ON prekey_claim (claimed_at);

-- Every hand-out, append-only: what shows whether a prekey was ever handed out as fresh to more than one requester.
CREATE TABLE hand_out (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    account     INTEGER NOT NULL,
    protocol    INTEGER NOT NULL,
    device      INTEGER NOT NULL,
    key         BLOB NOT NULL,
    requester   TEXT NOT NULL,
    last_resort INTEGER NOT NULL,
    at          INTEGER NOT NULL
);
CREATE INDEX hand_out_account ON hand_out (account);

CREATE TABLE subscription (
    account    INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol   INTEGER NOT NULL,
    -- 1: the device list; 2: the bundles.
    node       INTEGER NOT NULL,
    subscriber TEXT NOT NULL,
    PRIMARY KEY (account, protocol, node, subscriber)
) WITHOUT ROWID;

-- Which device a session of the owner has been seen to be.
CREATE TABLE session_device (
    account    INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol   INTEGER NOT NULL,
    resource   TEXT NOT NULL,
    device     INTEGER NOT NULL,
    learned_at INTEGER NOT NULL,
    PRIMARY KEY (account, protocol, resource, device)
) WITHOUT ROWID;
CREATE INDEX session_device_age ON session_device (account, protocol, learned_at);
