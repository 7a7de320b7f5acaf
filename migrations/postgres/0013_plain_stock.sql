-- Up to where a device's stock is handed out without a look at what is left of it. To count that with each claim took as
-- long as all the rest of the claim.
ALTER TABLE bundle
    -- Prekeys with a lower upload number. After them come at least ...
    ADD COLUMN plain_until bigint NOT NULL DEFAULT 0,
    -- ... so many more ...
    ADD COLUMN plain_rest integer NOT NULL DEFAULT 0,
    -- ... as long as nothing has been published since: `next_upload` as it was.
    ADD COLUMN plain_upload bigint NOT NULL DEFAULT -1;
