//! What a device is told without having asked, as a headline.
//!
//! ```xml
//! <low-stock xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223' unissued='0'/>
//! <quarantined xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223'/>
//! ```

use super::Device;
use crate::stanza::tree::push_attribute;

/// What is told about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// So many prekeys are left that nobody has: publish new ones.
    LowStock {
        /// How many; often none.
        unissued: u32,
    },
    /// The device is no longer listed, until it announces itself again.
    Quarantined,
    /// The device and its bundle have been removed.
    Removed,
    /// The database was restored from a backup: all one-time prekeys are void and have to be replaced.
    Restored,
}

/// The payload of the message.
pub fn payload(device: Device, notice: Notice) -> String {
    let name = match notice {
        Notice::LowStock { .. } => "low-stock",
        Notice::Quarantined => "quarantined",
        Notice::Removed => "removed",
        Notice::Restored => "restored",
    };
    let mut out = super::open(name);
    device.push(&mut out);
    if let Notice::LowStock { unissued } = notice {
        push_attribute(&mut out, "unissued", &unissued.to_string());
    }
    out.push_str("/>");
    out
}
