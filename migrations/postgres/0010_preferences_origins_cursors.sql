-- What an owner wants archived, which messages can be found again by their author's id, and how far devices have read.

-- What becomes of messages with a JID in none of the lists. 1: archived; 2: not. NULL: the owner has set no preferences.
-- In the row that every append locks: preferences and messages never pass each other.
ALTER TABLE account ADD COLUMN archive_default smallint;

-- The lists of the preferences (XEP-0441): a bare JID, or a full one.
CREATE TABLE archive_preference (
    account bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    jid     text COLLATE "C" NOT NULL,
    -- Whether it is in the list of those always archived, or of those never.
    keep    boolean NOT NULL,
    PRIMARY KEY (account, jid)
);

-- A keyed hash of author, recipient and the id that the author gave the message: how a retraction finds it.
ALTER TABLE body ADD COLUMN origin bigint;
CREATE INDEX body_origin ON body (origin) WHERE origin IS NOT NULL;

-- Which copies share a body: it goes with the last of them.
CREATE INDEX entry_body ON entry (body) WHERE body IS NOT NULL;

-- How far a device has read its owner's archive, as it said itself: it has everything up to this sequence number.
CREATE TABLE read_cursor (
    account  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol smallint NOT NULL,
    device   integer NOT NULL,
    sequence bigint NOT NULL,
    moved_at bigint NOT NULL,
    PRIMARY KEY (account, protocol, device)
);
