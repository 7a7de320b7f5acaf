-- The copies with one address are found by one number for archive and address together, instead of two: an entry of these
-- indexes takes 20 bytes instead of 28 (src/store/postgres/conversation.rs). The program before this one finds them without
-- the indexes that are dropped here, too, but reads more of the archive for it.
CREATE INDEX entry_conversation
    ON entry (((((account::bigint * 2654435761 + peer) & 4294967295) - 2147483648)::integer), sequence)
    WITH (fillfactor = 100);
CREATE INDEX entry_conversation_full
    ON entry (((((account::bigint * 2654435761 + peer_full) & 4294967295) - 2147483648)::integer), sequence)
    WITH (fillfactor = 100) WHERE peer_full <> 0;
-- As for the columns: statistics over all archives would mislead about each.
ALTER INDEX entry_conversation ALTER COLUMN 1 SET STATISTICS 0;
ALTER INDEX entry_conversation_full ALTER COLUMN 1 SET STATISTICS 0;
DROP INDEX entry_peer;
DROP INDEX entry_peer_full;
