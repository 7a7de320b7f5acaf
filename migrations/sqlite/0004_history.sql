-- The history of each owner's devices: every device list that came into force and every identity key, each entry chained
-- to the one before by its hash (docs/protocol.md, "History"). Append-only. An account that was there before has no entry
-- until its next change or the first reading of its history, which both begin with the state they find.
CREATE TABLE history (
    account  INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    -- From 1, without gaps.
    position INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    -- 1: the list in force; 2: no list any more; 3: an identity key.
    kind     INTEGER NOT NULL,
    -- Of an identity key: whose.
    device   INTEGER,
    -- What changed, in the bytes that are hashed.
    content  BLOB NOT NULL,
    hash     BLOB NOT NULL,
    PRIMARY KEY (account, position)
) WITHOUT ROWID;
CREATE INDEX history_identity ON history (account, protocol, device, position) WHERE kind = 3;
