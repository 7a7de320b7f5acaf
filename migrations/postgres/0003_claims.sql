-- Who a prekey was issued to stands with the prekey: a hand-out is one row, which is also what the claimant gets again
-- while it asks again (directory invariant 2), and what says whose key exchange may use it up (invariant 3).

ALTER TABLE prekey
    -- Who got it first (model::Claimant); NULL while unissued, and for what was issued before this was written down.
    ADD COLUMN claimant text COLLATE "C",
    -- 0: the claimant gets it again. Else the place in the queue, so that the key below stays unique.
    ADD COLUMN superseded bigint NOT NULL DEFAULT 0,
    -- How often it was handed out as never issued before: invariant 1 says once.
    ADD COLUMN fresh_issues integer NOT NULL DEFAULT 0,
    -- How often it was handed out again, to others.
    ADD COLUMN last_resorts integer NOT NULL DEFAULT 0;

WITH handed AS (
    SELECT account, protocol, device, key, count(*) FILTER (WHERE NOT last_resort) AS fresh,
           count(*) FILTER (WHERE last_resort) AS again, min(requester) FILTER (WHERE NOT last_resort) AS claimant
    FROM hand_out GROUP BY account, protocol, device, key)
UPDATE prekey p SET fresh_issues = h.fresh, last_resorts = h.again, claimant = h.claimant, superseded = p.upload + 1
FROM handed h
WHERE p.account = h.account AND p.protocol = h.protocol AND p.device = h.device AND p.key = h.key;
UPDATE prekey p SET superseded = 0
FROM prekey_claim c
WHERE NOT c.last_resort AND p.account = c.account AND p.protocol = c.protocol AND p.device = c.device AND p.key = c.key
AND p.claimant = c.requester;

-- What one claimant has, and by the range of its account everything that the account was issued.
CREATE UNIQUE INDEX prekey_claimant ON prekey (account, protocol, device, claimant, superseded)
    WHERE claimant IS NOT NULL;
CREATE INDEX prekey_consumed ON prekey (account, protocol, device, consumed_at) WHERE consumed_at IS NOT NULL;

-- Hand-outs of the last resort: for the repeat window, and for whose key exchange may use the key up.
CREATE TABLE last_resort (
    account      bigint NOT NULL,
    protocol     smallint NOT NULL,
    device       integer NOT NULL,
    claimant     text COLLATE "C" NOT NULL,
    key          bytea NOT NULL,
    claimed_at   bigint NOT NULL,
    PRIMARY KEY (account, protocol, device, claimant)
);
CREATE INDEX last_resort_age ON last_resort (claimed_at);
INSERT INTO last_resort (account, protocol, device, claimant, key, claimed_at)
    SELECT account, protocol, device, requester, key, claimed_at FROM prekey_claim
    WHERE last_resort AND key IS NOT NULL;
DROP TABLE prekey_claim;
DROP TABLE hand_out;

-- What is left of an allowance that refills with time, by the moment until which it has been spent.
CREATE TABLE claim_budget (
    -- 1: an account that claims; 2: a domain whose accounts claim.
    scope       smallint NOT NULL,
    name        text COLLATE "C" NOT NULL,
    spent_until bigint NOT NULL,
    -- The day of that moment: what is over can be found, and most updates touch no index.
    spent_day   integer NOT NULL,
    PRIMARY KEY (scope, name)
) WITH (fillfactor = 70);
CREATE INDEX claim_budget_day ON claim_budget (spent_day);

ALTER TABLE bundle
    -- One-time prekeys in it as published.
    ADD COLUMN prekeys integer NOT NULL DEFAULT 0,
    -- What the device was last told about its stock. 0: nothing; 1: that it is low; 2: that it is empty.
    ADD COLUMN stock_told smallint NOT NULL DEFAULT 0,
    -- The moment until which strangers have spent what they may get of the reserve.
    ADD COLUMN reserve_spent_until bigint NOT NULL DEFAULT 0;
UPDATE bundle b SET prekeys = (
    SELECT count(*) FROM prekey p
    WHERE p.account = b.account AND p.protocol = b.protocol AND p.device = b.device AND NOT p.withdrawn)
WHERE payload IS NOT NULL;
