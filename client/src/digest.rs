//! The digests of the self-check (docs/protocol.md, "Self-check"), over elements as this device would publish them, or as it
//! was given them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use sha2::{Digest as _, Sha256};

use crate::protocol::Protocol;

/// How a protocol calls what is in its bundles: identity key, signed prekey with its id, signature, id of a prekey.
struct Names {
    protocol: &'static str,
    identity: &'static str,
    signed: (&'static str, &'static str),
    signature: &'static str,
    prekey_id: &'static str,
}

const fn names(protocol: Protocol) -> Names {
    match protocol {
        Protocol::Omemo2 => {
            Names { protocol: "omemo2", identity: "ik", signed: ("spk", "id"), signature: "spks", prekey_id: "id" }
        }
        Protocol::Legacy => Names {
            protocol: "legacy",
            identity: "identityKey",
            signed: ("signedPreKeyPublic", "signedPreKeyId"),
            signature: "signedPreKeySignature",
            prekey_id: "preKeyId",
        },
    }
}

/// Of a `<bundle/>`, in base64; `None` if it is none.
pub(crate) fn of_bundle(protocol: Protocol, bundle: &Element, device: u32) -> Option<String> {
    let names = names(protocol);
    let part = |name: &str| bundle.get_child(name, protocol.namespace());
    let bytes = |element: &Element| STANDARD.decode(element.text().trim()).ok();
    let id = |element: &Element, name: &str| element.attr(name)?.parse::<u32>().ok();
    let mut canonical = Canonical::new("multiend bundle", &names);
    canonical.number(device);
    canonical.bytes(&bytes(part(names.identity)?)?);
    let signed = part(names.signed.0)?;
    canonical.number(id(signed, names.signed.1)?);
    canonical.bytes(&bytes(signed)?);
    canonical.bytes(&bytes(part(names.signature)?)?);
    let prekeys = part("prekeys")?.children().map(|prekey| Some((id(prekey, names.prekey_id)?, bytes(prekey)?)));
    let mut prekeys = prekeys.collect::<Option<Vec<_>>>()?;
    prekeys.sort_unstable();
    canonical.count(prekeys.len());
    for (id, key) in prekeys {
        canonical.number(id);
        canonical.bytes(&key);
    }
    Some(canonical.digest())
}

/// Of a device list, in base64; `None` if it is none.
pub(crate) fn of_list(protocol: Protocol, list: &Element) -> Option<String> {
    let mut canonical = Canonical::new("multiend list", &names(protocol));
    let devices: Vec<&Element> = list.children().filter(|child| child.is("device", protocol.namespace())).collect();
    canonical.count(devices.len());
    for device in devices {
        canonical.number(device.attr("id")?.parse().ok()?);
        let has_labels = protocol == Protocol::Omemo2;
        canonical.optional(device.attr("label").filter(|_| has_labels));
        canonical.optional(device.attr("labelsig").filter(|_| has_labels));
    }
    Some(canonical.digest())
}

struct Canonical(Sha256);

impl Canonical {
    fn new(of: &str, names: &Names) -> Self {
        Self(Sha256::new().chain_update(of).chain_update([0]).chain_update(names.protocol).chain_update([0]))
    }

    fn number(&mut self, number: u32) {
        self.0.update(number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            None => self.0.update([0]),
            Some(text) => {
                self.0.update([1]);
                self.bytes(text.as_bytes());
            }
        }
    }

    fn digest(self) -> String {
        STANDARD.encode(self.0.finalize())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The example of docs/protocol.md.
    #[test]
    fn the_digests_are_those_of_the_specification() {
        let key = |byte: u8, length: usize| STANDARD.encode(vec![byte; length]);
        let bundle = format!(
            "<bundle xmlns='urn:xmpp:omemo:2'><spk id='7'>{}</spk><spks>{}</spks><ik>{}</ik>\
             <prekeys><pk id='2'>{}</pk><pk id='1'>{}</pk></prekeys></bundle>",
            key(0xbb, 32),
            key(0xcc, 64),
            key(0xaa, 32),
            key(2, 32),
            key(1, 32),
        );
        assert_eq!(
            of_bundle(Protocol::Omemo2, &bundle.parse().unwrap(), 4223).unwrap(),
            "br2z6RUJTpqFxky+AZbQHf4RqMrXEHY2Ep6Zoft0dlU="
        );
        let list = "<devices xmlns='urn:xmpp:omemo:2'><device id='4223' label='phone'/><device id='1'/></devices>";
        assert_eq!(
            of_list(Protocol::Omemo2, &list.parse().unwrap()).unwrap(),
            "SlRs6OApcq/EWY+pqGMLC4l6kB8k0KgBGCWLpDpBnpE="
        );
    }
}
