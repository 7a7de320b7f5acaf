-- The archive: bodies, and the copies of them that each account has.

-- A message's bytes, shared by the copies of all its owners.
CREATE TABLE body (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    bytes      BLOB NOT NULL,
    -- When the last of its copies expires; NULL: never.
    expires_at INTEGER
);
CREATE INDEX body_expiry ON body (expires_at) WHERE expires_at IS NOT NULL;

-- One copy. Within an account `at` never decreases with the sequence, so that a range of time is a range of the sequence.
CREATE TABLE entry (
    account       INTEGER NOT NULL,
    sequence      INTEGER NOT NULL,
    archive_id    TEXT NOT NULL,
    -- The other side's bare JID.
    peer          TEXT NOT NULL,
    peer_resource TEXT,
    own_resource  TEXT,
    -- 1: sent; 2: received.
    direction     INTEGER NOT NULL,
    class         INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    expires_at    INTEGER,
    -- NULL: a placeholder.
    body          INTEGER,
    -- The length of the body in bytes, to bound a page without reading bodies.
    size          INTEGER NOT NULL,
    PRIMARY KEY (account, sequence),
    UNIQUE (account, archive_id)
) WITHOUT ROWID;
CREATE INDEX entry_peer ON entry (account, peer, sequence);
CREATE INDEX entry_peer_resource ON entry (account, peer, peer_resource, sequence) WHERE peer_resource IS NOT NULL;
CREATE INDEX entry_time ON entry (account, at, sequence);
CREATE INDEX entry_expiry ON entry (expires_at) WHERE expires_at IS NOT NULL AND body IS NOT NULL;

-- What was trimmed from the oldest end of an archive, and which archives may have something to trim.
CREATE TABLE archive_trim (
    account       INTEGER PRIMARY KEY,
    due           INTEGER NOT NULL,
    -- Of what was trimmed: the newest moment at which something expired, and the newest time of a message.
    expired_until INTEGER,
    sent_until    INTEGER
);
CREATE INDEX archive_trim_due ON archive_trim (account) WHERE due;

-- Single values of the deployment.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
