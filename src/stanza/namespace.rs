//! Namespaces, each with its specification.

/// OMEMO 2 (XEP-0384 0.9).
pub const OMEMO_2: &str = "urn:xmpp:omemo:2";
/// OMEMO as most clients speak it (XEP-0384 0.3).
pub const OMEMO_LEGACY: &str = "eu.siacs.conversations.axolotl";
/// Publish-subscribe (XEP-0060).
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// Publish-subscribe, for owners of nodes.
pub const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// Publish-subscribe notifications.
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// The form of publish-options.
pub const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// The form of a node's configuration.
pub const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
/// The form of what is said about a node.
pub const NODE_META_DATA: &str = "http://jabber.org/protocol/pubsub#meta-data";
/// Data forms (XEP-0004).
pub const DATA_FORM: &str = "jabber:x:data";
/// Service discovery (XEP-0030).
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Service discovery, items.
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// Ping (XEP-0199).
pub const PING: &str = "urn:xmpp:ping";
/// Software version (XEP-0092).
pub const VERSION: &str = "jabber:iq:version";
/// Message archives (XEP-0313).
pub const MAM: &str = "urn:xmpp:mam:2";
/// Stanza and origin ids (XEP-0359).
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// Our own extension (docs/protocol.md).
pub const MULTIEND: &str = "urn:multiend:0";
/// What the server plugins and we say to each other (docs/plugin-protocol.md).
pub const PLUGIN: &str = "urn:multiend:plugin:0";
/// Namespace delegation (XEP-0355), whose wrapper the plugins use.
pub const DELEGATION: &str = "urn:xmpp:delegation:2";
