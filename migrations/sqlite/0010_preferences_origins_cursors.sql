-- What an owner wants archived, which messages can be found again by their author's id, and how far devices have read.

-- What becomes of messages with a JID in none of the lists. 1: archived; 2: not. NULL: the owner has set no preferences.
ALTER TABLE account ADD COLUMN archive_default INTEGER;

-- The lists of the preferences (XEP-0441): a bare JID, or a full one.
CREATE TABLE archive_preference (
    account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    jid     TEXT NOT NULL,
    -- Whether it is in the list of those always archived, or of those never.
    keep    INTEGER NOT NULL,
    PRIMARY KEY (account, jid)
) WITHOUT ROWID;

-- A keyed hash of author, recipient and the id that the author gave the message: how a retraction finds it.
ALTER TABLE body ADD COLUMN origin INTEGER;
CREATE INDEX body_origin ON body (origin) WHERE origin IS NOT NULL;

-- Which copies share a body: it goes with the last of them.
CREATE INDEX entry_body ON entry (body) WHERE body IS NOT NULL;

-- How far a device has read its owner's archive, as it said itself: it has everything up to this sequence number.
CREATE TABLE read_cursor (
    account  INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol INTEGER NOT NULL,
    device   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    moved_at INTEGER NOT NULL,
    PRIMARY KEY (account, protocol, device)
) WITHOUT ROWID;
