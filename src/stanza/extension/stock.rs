//! What became of a device's prekeys: which nobody has, which somebody was given, and which were used.
//!
//! ```xml
//! <stock xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223'><prekey id='17'/></stock>
//! <stock xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223' unissued='1' issued='1' consumed='1'>
//!   <prekey id='18' state='unissued'/><prekey id='16' state='issued'/><prekey id='17' state='consumed'/>
//! </stock>
//! ```

use super::Device;
use crate::model::PrekeyId;
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::namespace::MULTIEND;
use crate::stanza::tree::{Element, push_attribute};

/// Most prekeys of earlier bundles that one request may name.
pub const MAX_OTHERS: usize = 500;

/// Whose stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Of which device.
    pub device: Device,
    /// Prekeys of earlier bundles that are asked about, too.
    pub others: Vec<PrekeyId>,
}

impl Request {
    pub(super) fn parse(payload: &Element<'_>) -> Result<Self, StanzaError> {
        let device = Device::parse(payload)?;
        let mut others = Vec::new();
        for prekey in payload.children_named("prekey", MULTIEND) {
            if others.len() >= MAX_OTHERS {
                let text = format!("at most {MAX_OTHERS} prekeys in one request");
                return Err(StanzaError::new(Condition::PolicyViolation, text));
            }
            let id = PrekeyId::parse(prekey.attribute("id").unwrap_or_default());
            others.push(id.map_err(|error| StanzaError::new(Condition::BadRequest, error.to_string()))?);
        }
        Ok(Self { device, others })
    }
}

/// What became of a prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody has it.
    Unissued,
    /// Somebody was given it.
    Issued,
    /// A key exchange that names it has come through the archive.
    Consumed,
}

impl State {
    const ALL: [Self; 3] = [Self::Unissued, Self::Issued, Self::Consumed];

    fn name(self) -> &'static str {
        match self {
            Self::Unissued => "unissued",
            Self::Issued => "issued",
            Self::Consumed => "consumed",
        }
    }
}

/// `<stock/>`: the answer. The counts are of the prekeys told; zeros are written.
pub fn result(device: Device, prekeys: &[(PrekeyId, State)]) -> String {
    let mut out = super::open("stock");
    device.push(&mut out);
    for state in State::ALL {
        let count = prekeys.iter().filter(|(_, other)| *other == state).count();
        push_attribute(&mut out, state.name(), &count.to_string());
    }
    out.push('>');
    for (id, state) in prekeys {
        out.push_str("<prekey");
        push_attribute(&mut out, "id", &id.to_string());
        push_attribute(&mut out, "state", state.name());
        out.push_str("/>");
    }
    out.push_str("</stock>");
    out
}
