//! Publish-subscribe (XEP-0060, XEP-0163) as OMEMO uses it: the nodes, what can be asked of them, and the answers.
//!
//! The nodes here are not a general pubsub service: each has one shape, one access model and one kind of payload, which no
//! request changes ([`configuration`]). What a client asks for in other words and gets anyway is accepted; what it would
//! not get is refused.

pub mod configuration;
mod event;
mod node;
mod reply;
mod request;

pub use event::{delete_event, event, retract_event};
pub use node::Node;
pub use reply::{
    Affiliation, Item, Subscription, affiliations, items_result, publish_result, subscription_result, subscriptions,
};
pub use request::{MAX_ITEM_ID, MAX_ITEMS, Request};
