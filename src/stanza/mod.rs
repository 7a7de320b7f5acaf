//! Typed payloads, one file per XEP, over bounded raw slices.

pub mod cut;
pub mod data_form;
pub mod delay;
pub mod ephemeral;
pub mod forwarded;
pub mod hints;
pub mod mam;
pub mod message;
pub mod omemo;
pub mod rsm;
pub mod stanza_id;
pub mod tree;
