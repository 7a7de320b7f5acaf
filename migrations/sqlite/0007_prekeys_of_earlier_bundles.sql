-- What became of prekeys that a device has withdrawn after they were issued, found by the ids that it asks about: tombstones
-- are many.
CREATE INDEX prekey_withdrawn ON prekey (account, protocol, device, prekey_id) WHERE issued_at IS NOT NULL AND withdrawn;
