//! What one device gets to see of an archived message: without the headers that are for other devices (DESIGN, archive
//! invariant 4).
//!
//! A header of 130 characters goes to every device of both sides; each can use one. Trimming only ever cuts whole `<key/>`
//! and `<keys/>` elements out of the bytes, and leaves whole messages out only where asked to, and only where it is certain which devices the session is: a client that is
//! taken for the wrong device would lose its key. All other bytes stay as they came.

use std::collections::BTreeSet;

use bytes::Bytes;
use jid::BareJid;

use super::classify::is_otherwise_encrypted;
use crate::model::{DeviceId, Owner, Protocol, ProtocolDevice, Unreadable};
use crate::stanza::tree::{Element, TreeError};
use crate::stanza::{cut, jid_escaping, omemo};

/// Who looks: the owner, and the devices that its session certainly is, per protocol.
#[derive(Debug, Clone)]
pub struct Viewer {
    owner: Owner,
    legacy: BTreeSet<DeviceId>,
    omemo2: BTreeSet<DeviceId>,
    unreadable: Unreadable,
    registered: Vec<Protocol>,
}

/// A message as one viewer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The body bytes, trimmed.
    pub body: Bytes,
    /// How many bytes went.
    pub saved: usize,
    /// Protocols in which the message was encrypted, but not for any device of the viewer: that device cannot read it.
    pub not_for_viewer: Vec<Protocol>,
    /// The viewer is to be given nothing of it. `body` is then the trimmed message all the same.
    pub omit: bool,
}

impl Viewer {
    /// A viewer of which nothing is known yet: it is given everything.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            legacy: BTreeSet::new(),
            omemo2: BTreeSet::new(),
            unreadable: Unreadable::Trim,
            registered: Vec::new(),
        }
    }

    /// What it is given of messages that have no header for it.
    pub fn with_unreadable(mut self, unreadable: Unreadable) -> Self {
        self.unreadable = unreadable;
        self
    }

    /// It is certain that the session is one of the devices given in this protocol, and that one stands in the owner's list:
    /// whoever wrote to the owner since then has had the chance to make a header for it. Nothing is omitted otherwise.
    pub fn registered(mut self, protocol: Protocol) -> Self {
        self.registered.push(protocol);
        self
    }

    /// The session is these devices in this protocol. None: not known, and nothing is trimmed.
    pub fn with_devices(mut self, protocol: Protocol, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        match protocol {
            Protocol::Legacy => self.legacy.extend(devices),
            Protocol::Omemo2 => self.omemo2.extend(devices),
        }
        self
    }

    fn devices(&self, protocol: Protocol) -> &BTreeSet<DeviceId> {
        match protocol {
            Protocol::Legacy => &self.legacy,
            Protocol::Omemo2 => &self.omemo2,
        }
    }

    /// Whether nothing would ever be trimmed.
    pub fn sees_everything(&self) -> bool {
        self.legacy.is_empty() && self.omemo2.is_empty()
    }

    /// The message as this viewer sees it. Fails only on bytes that are not a stanza, which no store should hold.
    pub fn view(&self, body: &Bytes) -> Result<View, TreeError> {
        if self.sees_everything() {
            return Ok(View { body: body.clone(), saved: 0, not_for_viewer: Vec::new(), omit: false });
        }
        let message = Element::parse(body)?;
        let mut cuts = Vec::new();
        let mut not_for_viewer = Vec::new();
        let found = omemo::find(&message);
        for encrypted in &found {
            let devices = self.devices(encrypted.protocol);
            if devices.is_empty() {
                continue;
            }
            let own_group: Vec<bool> = encrypted.groups.iter().map(|group| self.is_own(group.jid)).collect();
            let mut kept_in = vec![false; encrypted.groups.len()];
            let mut kept = false;
            for header in &encrypted.headers {
                let own = header.group.is_none_or(|group| own_group.get(group).copied().unwrap_or(true));
                if own && devices.contains(&header.rid) {
                    kept = true;
                    if let Some(group) = header.group.and_then(|group| kept_in.get_mut(group)) {
                        *group = true;
                    }
                } else {
                    cuts.push(header.span.clone());
                }
            }
            for (group, kept) in encrypted.groups.iter().zip(&kept_in) {
                if !kept && !group.opaque {
                    cuts.push(group.span.clone());
                }
            }
            if !kept {
                not_for_viewer.push(encrypted.protocol);
            }
        }
        // Headers beyond the bound have not been looked at: one of them may be for the viewer.
        let unreadable = !found.is_empty()
            && not_for_viewer.len() == found.len()
            && found.iter().all(|encrypted| encrypted.headers.len() < omemo::MAX_HEADERS);
        let omit = unreadable && self.unreadable == Unreadable::Omit && self.may_omit(&message, &found);
        if cuts.is_empty() || (unreadable && self.unreadable == Unreadable::Keep) {
            return Ok(View { body: body.clone(), saved: 0, not_for_viewer, omit });
        }
        let (trimmed, saved) = cut::without(message.raw(), shifted(cuts, message.span().start));
        Ok(View { body: Bytes::from(trimmed), saved, not_for_viewer, omit })
    }

    /// Whether an unreadable message is of no use to the viewer. One that it sent itself is, though it has no header for it:
    /// by it a client learns that its message was archived, and where.
    fn may_omit(&self, message: &Element<'_>, found: &[omemo::Encrypted<'_>]) -> bool {
        let by_others = |encrypted: &omemo::Encrypted<'_>| {
            self.registered.contains(&encrypted.protocol)
                && encrypted.sid.is_none_or(|sid| !self.devices(encrypted.protocol).contains(&sid))
        };
        found.iter().all(by_others) && !is_otherwise_encrypted(message)
    }

    fn is_own(&self, jid: &str) -> bool {
        is_of(&self.owner, jid)
    }
}

/// Whether a group of headers is for an owner: by its bare JID, or by its alias, whatever the component is called (XEP-0106).
/// One that names no JID might be, too.
fn is_of(owner: &Owner, jid: &str) -> bool {
    let Ok(jid) = BareJid::new(jid.trim()) else { return true };
    jid == *owner.jid() || jid.node().is_some_and(|account| jid_escaping::unescape(account.as_str()) == owner.as_str())
}

/// The devices that a message has headers for, as far as they may be the owner's (the legacy protocol does not say whose a
/// device is); `None` where it is not OMEMO, or not all of it could be read.
pub(super) fn headers_for(message: &Element<'_>, owner: &Owner) -> Option<Vec<ProtocolDevice>> {
    let found = omemo::find(message);
    let mut devices = Vec::new();
    for encrypted in &found {
        if encrypted.headers.len() >= omemo::MAX_HEADERS || encrypted.groups.iter().any(|group| group.opaque) {
            return None;
        }
        for header in &encrypted.headers {
            let group = header.group.and_then(|group| encrypted.groups.get(group));
            if group.is_none_or(|group| is_of(owner, group.jid)) {
                devices.push(ProtocolDevice { protocol: encrypted.protocol, device: header.rid });
            }
        }
    }
    (!found.is_empty()).then_some(devices)
}

/// Spans as they count from the start of the stanza.
fn shifted(mut cuts: Vec<std::ops::Range<usize>>, offset: usize) -> Vec<std::ops::Range<usize>> {
    for cut in &mut cuts {
        *cut = cut.start.saturating_sub(offset)..cut.end.saturating_sub(offset);
    }
    cuts
}

#[cfg(test)]
mod tests;
