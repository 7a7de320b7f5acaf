-- What devices and subscribers are to be told outside of an answer: written with the change that it tells of, deleted once
-- it has been sent.
CREATE TABLE notice (
    account      INTEGER NOT NULL,
    protocol     INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    -- 0: it is about the list, not about one device.
    device       INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    -- Until then it is some instance's to send; what has not been settled by then is taken again.
    leased_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, protocol, kind, device)
) WITHOUT ROWID;
CREATE INDEX notice_due ON notice (leased_until, at);
