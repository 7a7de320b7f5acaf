//! Typed payloads, one file per XEP, over bounded raw slices.
//!
//! Reading goes through [`tree`], which keeps the bytes; what must stay opaque is never rebuilt from a parsed form. Nothing
//! here knows who may do what: that is for the doors and the rules behind them.

pub mod ad_hoc;
pub mod bundle;
pub mod copies;
pub mod cut;
pub mod data_form;
pub mod delay;
pub mod delegation;
pub mod device_list;
pub mod disco;
pub mod ephemeral;
pub mod error;
pub mod extension;
pub mod forwarded;
pub mod hints;
pub mod history;
pub mod incoming;
pub mod jid_escaping;
pub mod key_exchange;
pub mod mam;
pub mod meaning;
pub mod message;
pub mod namespace;
pub mod omemo;
pub mod privilege;
pub mod pubsub;
pub mod read;
pub mod retraction;
pub mod rsm;
pub mod stanza_id;
pub mod stock_delegation;
pub mod tree;
