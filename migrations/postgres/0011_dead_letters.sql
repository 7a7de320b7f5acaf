-- Messages that the archive could not store for their own sake, set aside for an operator to look at.
CREATE TABLE dead_letter (
    -- The archive id of the first copy: the same message again is the same letter.
    id       text COLLATE "C" PRIMARY KEY,
    at       bigint NOT NULL,
    reason   text NOT NULL,
    -- All of the message, in one column that can hold any bytes.
    message  bytea NOT NULL
);
CREATE INDEX dead_letter_age ON dead_letter (at, id);

-- For whose archives it was.
CREATE TABLE dead_letter_owner (
    owner  text COLLATE "C" NOT NULL,
    letter text COLLATE "C" NOT NULL REFERENCES dead_letter ON DELETE CASCADE,
    PRIMARY KEY (owner, letter)
);
CREATE INDEX dead_letter_owner_letter ON dead_letter_owner (letter);
