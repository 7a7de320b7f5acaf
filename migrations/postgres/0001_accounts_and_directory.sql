-- Accounts, and the directory: device lists, bundles, one-time prekeys and who got them.
--
-- Every table of an account has the account as the first column of its key, so that all can be distributed by it. Moments
-- are microseconds since 1970; protocols are 1 (legacy) and 2 (omemo2). Tables that many requests write at once have no
-- foreign key to account: the check would lock the account's row.

CREATE TABLE account (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Byte order, as the program sorts: who locks several accounts does so in this order.
    jid           text COLLATE "C" NOT NULL UNIQUE,
    -- The archive's next sequence number. Taken under a lock on this row, so that numbers become visible in order.
    next_sequence bigint NOT NULL DEFAULT 1,
    -- The time of the archive's newest copy, if there was one; a later copy is never older than it.
    last_at       bigint,
    created_at    bigint NOT NULL
) WITH (fillfactor = 70);

-- A list in force; it may be empty.
CREATE TABLE device_list (
    account    bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol   smallint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (account, protocol)
);

CREATE TABLE listed_device (
    account         bigint NOT NULL,
    protocol        smallint NOT NULL,
    device          integer NOT NULL,
    position        integer NOT NULL,
    label           text,
    label_signature text,
    PRIMARY KEY (account, protocol, device),
    FOREIGN KEY (account, protocol) REFERENCES device_list ON DELETE CASCADE
);

-- What a session of the owner last saw of the list: the base of the three-way merge.
CREATE TABLE list_seen (
    account  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol smallint NOT NULL,
    resource text NOT NULL,
    devices  integer[] NOT NULL,
    seen_at  bigint NOT NULL,
    PRIMARY KEY (account, protocol, resource)
);

CREATE TABLE bundle (
    account                 bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol                smallint NOT NULL,
    device                  integer NOT NULL,
    item_id                 text NOT NULL,
    -- The element as published; NULL once the bundle was retracted. The row stays, for the two columns after it.
    payload                 bytea,
    identity_key            bytea NOT NULL,
    -- The place in the queue that the next new prekey of this device gets.
    next_upload             bigint NOT NULL,
    signed_prekey_id        bigint NOT NULL,
    signed_prekey           bytea NOT NULL,
    signed_prekey_signature bytea NOT NULL,
    published_at            bigint NOT NULL,
    PRIMARY KEY (account, protocol, device)
);

-- A one-time prekey, known by its key and not its id. A row with issued_at is a tombstone: it is never deleted, so the
-- key never counts as unissued again. A row without is in stock, and is deleted when its device withdraws the key.
CREATE TABLE prekey (
    account        bigint NOT NULL,
    protocol       smallint NOT NULL,
    device         integer NOT NULL,
    key            bytea NOT NULL,
    prekey_id      integer NOT NULL,
    upload         bigint NOT NULL,
    issued_at      bigint,
    last_issued_at bigint,
    -- When a key exchange that names it was seen: it is never given again.
    consumed_at    bigint,
    -- Not in the bundle now in force.
    withdrawn      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (account, protocol, device, key)
);
CREATE INDEX prekey_stock ON prekey (account, protocol, device, upload) WHERE issued_at IS NULL;
-- What the last resort is chosen from: never more rows than a bundle has prekeys.
CREATE INDEX prekey_issued ON prekey (account, protocol, device, last_issued_at, upload)
    WHERE issued_at IS NOT NULL AND NOT withdrawn;

-- What each requester got last, for the repeat window; also the row that its concurrent requests queue up for.
CREATE TABLE prekey_claim (
    account      bigint NOT NULL,
    protocol     smallint NOT NULL,
    device       integer NOT NULL,
    requester    text NOT NULL,
    -- NULL only inside the transaction that makes the row.
    key          bytea,
    -- A repeat is the same answer only as long as the device's identity is the same.
    identity_key bytea,
    last_resort  boolean NOT NULL DEFAULT false,
    claimed_at   bigint NOT NULL,
    PRIMARY KEY (account, protocol, device, requester)
);
CREATE INDEX prekey_claim_age ON prekey_claim (claimed_at);

-- Every hand-out, append-only: what shows whether a prekey was ever handed out as fresh to more than one requester.
CREATE TABLE hand_out (
    account     bigint NOT NULL,
    id          bigint GENERATED ALWAYS AS IDENTITY,
    protocol    smallint NOT NULL,
    device      integer NOT NULL,
    key         bytea NOT NULL,
    requester   text NOT NULL,
    last_resort boolean NOT NULL,
    at          bigint NOT NULL,
    PRIMARY KEY (account, id)
);

CREATE TABLE subscription (
    account    bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol   smallint NOT NULL,
    -- 1: the device list; 2: the bundles.
    node       smallint NOT NULL,
    subscriber text NOT NULL,
    PRIMARY KEY (account, protocol, node, subscriber)
);

-- Which device a session of the owner has been seen to be.
CREATE TABLE session_device (
    account    bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    protocol   smallint NOT NULL,
    resource   text NOT NULL,
    device     integer NOT NULL,
    learned_at bigint NOT NULL,
    PRIMARY KEY (account, protocol, resource, device)
);
CREATE INDEX session_device_age ON session_device (account, protocol, learned_at);
