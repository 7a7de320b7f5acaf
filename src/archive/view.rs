//! What one device gets to see of an archived message: without the headers that are for other devices (DESIGN, archive
//! invariant 4).
//!
//! A header of 130 characters goes to every device of both sides; each can use one. Trimming only ever cuts whole `<key/>`
//! and `<keys/>` elements out of the bytes, and only where it is certain which devices the session is: a client that is
//! taken for the wrong device would lose its key. All other bytes stay as they came.

use std::collections::BTreeSet;

use bytes::Bytes;
use jid::BareJid;

use crate::model::{DeviceId, Owner, Protocol};
use crate::stanza::tree::{Element, TreeError};
use crate::stanza::{cut, jid_escaping, omemo};

/// Who looks: the owner, and the devices that its session certainly is, per protocol.
#[derive(Debug, Clone)]
pub struct Viewer {
    owner: Owner,
    legacy: BTreeSet<DeviceId>,
    omemo2: BTreeSet<DeviceId>,
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
}

impl Viewer {
    /// A viewer of which nothing is known yet: it is given everything.
    pub fn new(owner: Owner) -> Self {
        Self { owner, legacy: BTreeSet::new(), omemo2: BTreeSet::new() }
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
            return Ok(View { body: body.clone(), saved: 0, not_for_viewer: Vec::new() });
        }
        let message = Element::parse(body)?;
        let mut cuts = Vec::new();
        let mut not_for_viewer = Vec::new();
        for encrypted in omemo::find(&message) {
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
        if cuts.is_empty() {
            return Ok(View { body: body.clone(), saved: 0, not_for_viewer });
        }
        let (trimmed, saved) = cut::without(message.raw(), shifted(cuts, message.span().start));
        Ok(View { body: Bytes::from(trimmed), saved, not_for_viewer })
    }

    /// Whether a group of headers is for the owner: by its bare JID, or by its alias, whatever the component is called
    /// (XEP-0106). One that names no JID might be, too.
    fn is_own(&self, jid: &str) -> bool {
        let Ok(jid) = BareJid::new(jid.trim()) else { return true };
        jid == *self.owner.jid()
            || jid.node().is_some_and(|account| jid_escaping::unescape(account.as_str()) == self.owner.as_str())
    }
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
