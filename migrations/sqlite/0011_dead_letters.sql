-- Messages that the archive could not store for their own sake, set aside for an operator to look at.
CREATE TABLE dead_letter (
    -- The archive id of the first copy: the same message again is the same letter.
    id       TEXT NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    -- All of the message, in one column that can hold any bytes.
    message  BLOB NOT NULL
);
CREATE INDEX dead_letter_age ON dead_letter (at, id);

-- For whose archives it was.
CREATE TABLE dead_letter_owner (
    owner  TEXT NOT NULL,
    letter TEXT NOT NULL REFERENCES dead_letter ON DELETE CASCADE,
    PRIMARY KEY (owner, letter)
) WITHOUT ROWID;
CREATE INDEX dead_letter_owner_letter ON dead_letter_owner (letter);
