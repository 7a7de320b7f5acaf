//! `multiend admin export OWNER`: what is kept for an account, in the portable form of XEP-0227 (server-data): its OMEMO
//! nodes as PEP nodes, its preferences, the history of its devices (`urn:multiend:0`, which servers pass over), and its
//! archive as XEP-0313 results, oldest first. Addresses are those of the accounts themselves, not their aliases.
//!
//! Written page by page as it is read: memory does not grow with the archive. Messages that come meanwhile may be at its end.

use std::io::{self, Write};
use std::str;

use jid::Jid;

use crate::model::{Clock, DeviceId, Direction, HistoryHead, Owner, Protocol, StoredCopy};
use crate::stanza::mam::{expired_placeholder, push_preferences, push_result};
use crate::stanza::message::assemble;
use crate::stanza::namespace::{DATA_FORM, PUBSUB, PUBSUB_OWNER};
use crate::stanza::pubsub::Node;
use crate::stanza::tree::push_attribute;
use crate::stanza::{device_list, history};
use crate::store::{Edge, Filter, HistoryRead, Page, PageQuery, Store, StoreError};

/// The namespace of XEP-0227.
const PIE: &str = "urn:xmpp:pie:0";
/// That of its archives.
const PIE_MAM: &str = "urn:xmpp:pie:0#mam";

/// Messages, and bytes of them, that are held at once.
const PAGE: u32 = 100;
const PAGE_BYTES: usize = 1024 * 1024;
/// Most bundles of one protocol; an owner can list far fewer.
const BUNDLES: u32 = 1_000;

/// Why an export was cut short.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it is written to.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    /// There is no such account here.
    #[error("there is no account {0} here")]
    Unknown(Owner),
    /// A page to go on from was purged twice: try again.
    #[error("messages expire faster than they can be exported; try again")]
    Overtaken,
}

/// Writes everything that is kept for an owner.
pub async fn export<S: Store + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    owner: &Owner,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    if !store.account_exists(owner).await? {
        return Err(ExportError::Unknown(owner.clone()));
    }
    let mut head = format!("<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='{PIE}'>\n<host");
    push_attribute(&mut head, "jid", owner.jid().domain().as_str());
    head.push_str(">\n<user");
    push_attribute(&mut head, "name", owner.jid().node().map(|node| node.as_str()).unwrap_or_default());
    head.push_str(">\n");
    out.write_all(head.as_bytes())?;
    nodes(store, owner, out).await?;
    let mut preferences = String::new();
    push_preferences(&mut preferences, &store.preferences(owner).await?, Jid::to_string);
    writeln!(out, "{preferences}")?;
    history(store, clock, owner, out).await?;
    archive(store, clock, owner, out).await?;
    out.write_all(b"</user>\n</host>\n</server-data>\n")?;
    Ok(out.flush()?)
}

/// The OMEMO nodes: their configuration, then their items.
async fn nodes<S: Store + ?Sized>(store: &S, owner: &Owner, out: &mut impl Write) -> Result<(), ExportError> {
    let mut configured = String::new();
    let mut items = String::new();
    for protocol in Protocol::ALL {
        if let Some(list) = store.device_list(owner, protocol, None).await? {
            let item = item("current", &device_list::write(&list, protocol));
            push_node(&mut configured, &mut items, Node::DeviceList(protocol), &item);
        }
        let bundles = store.published_bundles(owner, protocol, None, BUNDLES).await?;
        let written = |(device, id, payload): &(DeviceId, String, bytes::Bytes)| {
            let id = if protocol == Protocol::Omemo2 { device.to_string() } else { id.clone() };
            item(&id, str::from_utf8(payload).unwrap_or_default())
        };
        match protocol {
            Protocol::Omemo2 if bundles.is_empty() => {}
            Protocol::Omemo2 => {
                let all: String = bundles.iter().map(written).collect();
                push_node(&mut configured, &mut items, Node::Bundles, &all);
            }
            Protocol::Legacy => {
                for bundle in &bundles {
                    push_node(&mut configured, &mut items, Node::LegacyBundle(bundle.0), &written(bundle));
                }
            }
        }
    }
    if !items.is_empty() {
        writeln!(out, "<pubsub xmlns='{PUBSUB_OWNER}'>{configured}</pubsub>")?;
        writeln!(out, "<pubsub xmlns='{PUBSUB}'>{items}</pubsub>")?;
    }
    Ok(())
}

fn item(id: &str, payload: &str) -> String {
    let mut out = String::from("<item");
    push_attribute(&mut out, "id", id);
    out.push('>');
    out.push_str(payload);
    out.push_str("</item>");
    out
}

/// A node with its items; open for reading, as all OMEMO nodes are.
fn push_node(configured: &mut String, items: &mut String, node: Node, content: &str) {
    configured.push_str("<configure");
    push_attribute(configured, "node", &node.name());
    configured.push_str("><x");
    push_attribute(configured, "xmlns", DATA_FORM);
    configured.push_str(
        " type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#node_config</value>\
         </field><field var='pubsub#access_model'><value>open</value></field></x></configure>",
    );
    items.push_str("<items");
    push_attribute(items, "node", &node.name());
    items.push('>');
    items.push_str(content);
    items.push_str("</items>");
}

/// The verifiable history of the owner's lists and identity keys, as clients are given it, part by part.
async fn history<S: Store + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    owner: &Owner,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut known = HistoryHead::START;
    loop {
        // What is read is always on its own chain; an account without devices has no entries.
        let HistoryRead::Entries { head, entries } = store.history(owner, &known, PAGE, clock.now()).await? else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        writeln!(out, "{}", history::write(owner, &head, &entries))?;
        for entry in &entries {
            known = known.after(owner, entry.at, entry.protocol, &entry.change);
        }
    }
}

async fn archive<S: Store + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    owner: &Owner,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    writeln!(out, "<archive xmlns='{PIE_MAM}'>")?;
    let mut edge = Edge::First;
    loop {
        let query =
            PageQuery { owner: owner.clone(), filter: Filter::default(), edge, max: PAGE, max_bytes: PAGE_BYTES };
        let (copies, complete) = match store.page(&query, clock.now()).await? {
            Page::Copies { copies, complete, .. } => (copies, complete),
            Page::UnknownId(_) => return Err(ExportError::Overtaken),
        };
        for copy in &copies {
            writeln!(out, "{}", result(owner, copy))?;
        }
        match copies.last() {
            Some(last) if !complete => edge = Edge::After(last.archive_id.clone()),
            _ => break,
        }
    }
    writeln!(out, "</archive>")?;
    Ok(())
}

fn result(owner: &Owner, copy: &StoredCopy) -> String {
    let with = |bare: &str, resource: Option<&String>| {
        resource.map_or_else(|| bare.to_owned(), |resource| format!("{bare}/{resource}"))
    };
    let own = with(owner.as_str(), copy.own_resource.as_ref());
    let peer = with(copy.peer.as_str(), copy.peer_resource.as_ref());
    let (from, to) = match copy.direction {
        Direction::Sent => (own, peer),
        Direction::Received => (peer, own),
    };
    let message =
        copy.body.as_ref().and_then(|body| assemble(body, Some(&from), Some(&to), Some("jabber:client"), "").ok());
    let message = message.unwrap_or_else(|| expired_placeholder(&from, &to));
    let mut out = String::new();
    push_result(&mut out, None, &copy.archive_id, copy.at, &message);
    out
}
