//! The self-check: digests of what is published in a device's name, which it compares with what it thinks.
//!
//! ```xml
//! <check xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223'/>
//! <check xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223'>
//!   <bundle sha-256='…' unissued='97'/>
//!   <list sha-256='…' listed='true'/>
//! </check>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Device;
use crate::stanza::tree::push_attribute;

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The digest of the bundle, and how many of its prekeys nobody has; `None` without a bundle.
    pub bundle: Option<([u8; 32], u32)>,
    /// The digest of the list in force, and whether the device is in it; `None` without a list.
    pub list: Option<([u8; 32], bool)>,
}

/// `<check/>`: the answer.
pub fn result(device: Device, published: &Published) -> String {
    let mut out = super::open("check");
    device.push(&mut out);
    out.push('>');
    if let Some((digest, unissued)) = &published.bundle {
        out.push_str("<bundle");
        push_attribute(&mut out, "sha-256", &STANDARD.encode(digest));
        push_attribute(&mut out, "unissued", &unissued.to_string());
        out.push_str("/>");
    }
    if let Some((digest, listed)) = &published.list {
        out.push_str("<list");
        push_attribute(&mut out, "sha-256", &STANDARD.encode(digest));
        push_attribute(&mut out, "listed", if *listed { "true" } else { "false" });
        out.push_str("/>");
    }
    out.push_str("</check>");
    out
}
