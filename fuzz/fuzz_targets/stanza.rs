//! Everything that reads a stanza, on whatever comes.
#![no_main]

#[path = "../read_everything.rs"]
mod read_everything;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_everything::read_everything(bytes));
