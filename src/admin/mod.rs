//! Work for operators: the commands of `multiend admin`, one file each, and what runs by itself beside the service
//! (purging what has expired, taking out what was read or is too much, forgetting what is over).
//!
//! A command reads or changes the database and gives back what it has to say, which serialises as JSON and shows itself as
//! a table ([`table`]). It prints nothing and knows nothing of the command line. It runs in a process of its own: whatever
//! a running server must be told of it goes through the database.

pub mod ad_hoc;
pub mod backup_hints;
pub mod cursors;
pub mod dead_letters;
pub mod device;
pub mod devices;
pub mod erase;
pub mod export;
pub mod forget_claims;
pub mod identity_keys;
pub mod import;
pub mod last_run;
pub mod life_cycle;
pub mod long_work;
pub mod owners;
pub mod purge;
pub mod restore_epoch;
pub mod retention;
pub mod retire;
pub mod stats;
pub mod status;
pub mod table;
