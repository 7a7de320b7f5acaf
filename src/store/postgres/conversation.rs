//! The copies of one conversation in the order of their archive, in the narrowest index that can give them: by one number
//! that stands for archive and address together, and the sequence. Three numbers would take 28 bytes an entry instead of 20.
//!
//! Two conversations may have the same number, one in millions does: what is looked up by it is compared with the archive
//! and the address as well. These comparisons are written `account + 0`, or PostgreSQL would take the index that begins with
//! the account, and read all of the archive. The numbers spread archives over the index evenly and leave the conversations
//! of one side by side.

/// The number for an archive and an address in it, in SQL: literally what migration 0014 indexes.
macro_rules! conversation {
    ($account:literal, $address:literal) => {
        concat!("(((", $account, "::bigint * 2654435761 + ", $address, ") & 4294967295) - 2147483648)::integer")
    };
}

pub(super) use conversation;
