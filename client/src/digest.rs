//! The digests of the self-check (docs/protocol.md, "Self-check"), over elements as this device would publish them, or as it
//! was given them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use sha2::{Digest as _, Sha256};

use crate::xml::ns;

/// Of a `<bundle/>`, in base64; `None` if it is none.
pub(crate) fn of_bundle(bundle: &Element, device: u32) -> Option<String> {
    let part = |name: &str| bundle.get_child(name, ns::OMEMO2);
    let bytes = |element: &Element| STANDARD.decode(element.text().trim()).ok();
    let id = |element: &Element| element.attr("id")?.parse::<u32>().ok();
    let mut canonical = Canonical::new("multiend bundle");
    canonical.number(device);
    canonical.bytes(&bytes(part("ik")?)?);
    let signed = part("spk")?;
    canonical.number(id(signed)?);
    canonical.bytes(&bytes(signed)?);
    canonical.bytes(&bytes(part("spks")?)?);
    let prekeys = part("prekeys")?.children().map(|prekey| Some((id(prekey)?, bytes(prekey)?)));
    let mut prekeys = prekeys.collect::<Option<Vec<_>>>()?;
    prekeys.sort_unstable();
    canonical.count(prekeys.len());
    for (id, key) in prekeys {
        canonical.number(id);
        canonical.bytes(&key);
    }
    Some(canonical.digest())
}

/// Of a `<devices/>`, in base64; `None` if it is none.
pub(crate) fn of_list(list: &Element) -> Option<String> {
    let mut canonical = Canonical::new("multiend list");
    let devices: Vec<&Element> = list.children().filter(|child| child.is("device", ns::OMEMO2)).collect();
    canonical.count(devices.len());
    for device in devices {
        canonical.number(device.attr("id")?.parse().ok()?);
        canonical.optional(device.attr("label"));
        canonical.optional(device.attr("labelsig"));
    }
    Some(canonical.digest())
}

struct Canonical(Sha256);

impl Canonical {
    fn new(of: &str) -> Self {
        Self(Sha256::new().chain_update(of).chain_update([0]).chain_update("omemo2").chain_update([0]))
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
        assert_eq!(of_bundle(&bundle.parse().unwrap(), 4223).unwrap(), "br2z6RUJTpqFxky+AZbQHf4RqMrXEHY2Ep6Zoft0dlU=");
        let list = "<devices xmlns='urn:xmpp:omemo:2'><device id='4223' label='phone'/><device id='1'/></devices>";
        assert_eq!(of_list(&list.parse().unwrap()).unwrap(), "SlRs6OApcq/EWY+pqGMLC4l6kB8k0KgBGCWLpDpBnpE=");
    }
}
