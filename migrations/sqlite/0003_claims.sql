-- Who a prekey was issued to stands with the prekey: a hand-out is one row, which is also what the claimant gets again
-- while it asks again (directory invariant 2), and what says whose key exchange may use it up (invariant 3).

-- Who got it first (model::Claimant); NULL while unissued, and for what was issued before this was written down.
ALTER TABLE prekey ADD COLUMN claimant TEXT;
-- 0: the claimant gets it again. Else the place in the queue, so that the key below stays unique.
ALTER TABLE prekey ADD COLUMN superseded INTEGER NOT NULL DEFAULT 0;
-- How often it was handed out as never issued before: invariant 1 says once.
ALTER TABLE prekey ADD COLUMN fresh_issues INTEGER NOT NULL DEFAULT 0;
-- How often it was handed out again, to others.
ALTER TABLE prekey ADD COLUMN last_resorts INTEGER NOT NULL DEFAULT 0;

UPDATE prekey SET fresh_issues = h.fresh, last_resorts = h.again, claimant = h.claimant, superseded = upload + 1
FROM (SELECT account, protocol, device, key, count(*) FILTER (WHERE NOT last_resort) AS fresh,
             count(*) FILTER (WHERE last_resort) AS again, min(requester) FILTER (WHERE NOT last_resort) AS claimant
      FROM hand_out GROUP BY account, protocol, device, key) AS h
WHERE prekey.account = h.account AND prekey.protocol = h.protocol AND prekey.device = h.device AND prekey.key = h.key;
UPDATE prekey SET superseded = 0
FROM prekey_claim AS c
WHERE NOT c.last_resort AND prekey.account = c.account AND prekey.protocol = c.protocol AND prekey.device = c.device
AND prekey.key = c.key AND prekey.claimant = c.requester;

-- What one claimant has, and by the range of its account everything that the account was issued.
CREATE UNIQUE INDEX prekey_claimant ON prekey (account, protocol, device, claimant, superseded)
    WHERE claimant IS NOT NULL;
CREATE INDEX prekey_consumed ON prekey (account, protocol, device, consumed_at) WHERE consumed_at IS NOT NULL;

-- Hand-outs of the last resort: for the repeat window, and for whose key exchange may use the key up.
CREATE TABLE last_resort (
    account      INTEGER NOT NULL,
    protocol     INTEGER NOT NULL,
    device       INTEGER NOT NULL,
    claimant     TEXT NOT NULL,
    key          BLOB NOT NULL,
    claimed_at   INTEGER NOT NULL,
    PRIMARY KEY (account, protocol, device, claimant)
) WITHOUT ROWID;
CREATE INDEX last_resort_age ON last_resort (claimed_at);
INSERT INTO last_resort (account, protocol, device, claimant, key, claimed_at)
    SELECT account, protocol, device, requester, key, claimed_at FROM prekey_claim WHERE last_resort;
DROP TABLE prekey_claim;
DROP TABLE hand_out;

-- What is left of an allowance that refills with time, by the moment until which it has been spent.
CREATE TABLE claim_budget (
    -- 1: an account that claims; 2: a domain whose accounts claim.
    scope       INTEGER NOT NULL,
    name        TEXT NOT NULL,
    spent_until INTEGER NOT NULL,
    -- The day of that moment: what is over can be found, and most updates touch no index.
    spent_day   INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE INDEX claim_budget_day ON claim_budget (spent_day);

-- One-time prekeys in it as published.
ALTER TABLE bundle ADD COLUMN prekeys INTEGER NOT NULL DEFAULT 0;
-- What the device was last told about its stock. 0: nothing; 1: that it is low; 2: that it is empty.
ALTER TABLE bundle ADD COLUMN stock_told INTEGER NOT NULL DEFAULT 0;
-- The moment until which strangers have spent what they may get of the reserve.
ALTER TABLE bundle ADD COLUMN reserve_spent_until INTEGER NOT NULL DEFAULT 0;
UPDATE bundle SET prekeys = (
    SELECT count(*) FROM prekey p
    WHERE p.account = bundle.account AND p.protocol = bundle.protocol AND p.device = bundle.device AND NOT p.withdrawn)
WHERE payload IS NOT NULL;
