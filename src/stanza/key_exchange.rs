//! The one thing that the server reads in what OMEMO encrypts: the id of the prekey that a key exchange uses up, which
//! stands there in clear (DESIGN, directory invariant 3). Everything else stays opaque, and what cannot be read is no error.
//!
//! Both formats are protobuf. `OMEMOKeyExchange` (XEP-0384 §5.2) has `pk_id` as field 1 and the message as field 5; libsignal's
//! `PreKeySignalMessage`, after a byte with the version, has `preKeyId` as field 1 and the message as field 4. In a message
//! that is no key exchange, field 1 of either format is not a number, so the two cannot be confused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jid::BareJid;

use super::jid_escaping;
use super::omemo::{self, Encrypted};
use super::tree::Element;
use crate::model::{KeyExchange, Owner, PrekeyId, Protocol, Requester};

/// Longest header that is looked into, in characters of base64. One that carries a key has some 300 to 400.
const MAX_HEADER: usize = 4_096;
/// Most fields of a protobuf that are looked at: the two formats have five and six.
const MAX_FIELDS: usize = 32;
/// Most key exchanges of one message: the devices of two accounts, in two protocols.
pub const MAX_EXCHANGES: usize = 256;

/// The key exchanges that a message makes with devices of its recipient, or with its sender's own other devices.
pub fn find(message: &Element<'_>, sender: &Requester, recipient: &Owner) -> Vec<KeyExchange> {
    find_in(&omemo::find(message), sender, recipient)
}

/// The same of a message of which it has been read already what is encrypted.
pub fn find_in(encrypted: &[Encrypted<'_>], sender: &Requester, recipient: &Owner) -> Vec<KeyExchange> {
    let own = Owner::new(sender.jid().to_bare()).ok().filter(|own| own != recipient);
    let accounts: Vec<&Owner> = [Some(recipient), own.as_ref()].into_iter().flatten().collect();
    let mut exchanges = Vec::new();
    for encrypted in encrypted {
        for header in &encrypted.headers {
            let Some(prekey) = prekey_id(encrypted.protocol, header.key_exchange, header.data) else { continue };
            // The legacy format does not say whose device it is: a prekey given to this sender under this id tells.
            let jid = header.group.and_then(|group| encrypted.groups.get(group)).map(|group| group.jid);
            for owner in accounts.iter().filter(|owner| jid.is_none_or(|jid| names(jid, owner))) {
                if exchanges.len() == MAX_EXCHANGES {
                    return exchanges;
                }
                exchanges.push(KeyExchange {
                    owner: (*owner).clone(),
                    protocol: encrypted.protocol,
                    device: header.rid,
                    prekey,
                    sender: sender.clone(),
                    sender_device: encrypted.sid,
                });
            }
        }
    }
    exchanges
}

/// Whether a JID is an account, or its alias, whatever the component is called (XEP-0106).
fn names(jid: &str, owner: &Owner) -> bool {
    BareJid::new(jid.trim()).is_ok_and(|jid| {
        jid == *owner.jid()
            || jid.node().is_some_and(|account| jid_escaping::unescape(account.as_str()) == owner.as_str())
    })
}

/// The prekey that a header uses up; `None` if it is no key exchange, or none that can be read. Some legacy clients do not
/// mark a key exchange as one, so there its bytes decide.
pub fn prekey_id(protocol: Protocol, marked: bool, data: &str) -> Option<PrekeyId> {
    if data.len() > MAX_HEADER || (protocol == Protocol::Omemo2 && !marked) {
        return None;
    }
    if protocol == Protocol::Legacy && is_plainly_none(data) {
        return None;
    }
    let base64: Vec<u8> = data.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(base64).ok()?;
    match protocol {
        Protocol::Omemo2 => read(&bytes, 5),
        Protocol::Legacy => {
            let (version, rest) = bytes.split_first()?;
            // The message's version in the upper half: 3, the only one that OMEMO uses.
            if version >> 4 == 3 { read(rest, 4) } else { None }
        }
    }
}

/// Whether the first three bytes say already that this is an ordinary legacy message, as nearly all are: field 1 is its
/// ratchet key, which is bytes.
fn is_plainly_none(data: &str) -> bool {
    let mut first = [0_u8; 3];
    let decoded = data.as_bytes().get(..4).map(|digits| STANDARD.decode_slice(digits, &mut first));
    matches!((decoded, first), (Some(Ok(3)), [_, 0x0a, _]))
}

/// Field 1, where it is a prekey's id and `message` is a field of bytes.
fn read(bytes: &[u8], message: u64) -> Option<PrekeyId> {
    let (mut id, mut has_message) = (None, false);
    let mut fields = Fields(bytes);
    for _ in 0..MAX_FIELDS {
        match fields.next()? {
            // The last one counts, as in every protobuf.
            Some((1, Value::Number(number))) => id = Some(PrekeyId::new(u32::try_from(number).ok()?).ok()?),
            Some((1, Value::Bytes)) => return None,
            Some((field, Value::Bytes)) if field == message => has_message = true,
            Some(_) => {}
            None => return id.filter(|_| has_message),
        }
    }
    None
}

/// What a field holds.
enum Value {
    Number(u64),
    Bytes,
    Fixed,
}

/// The fields of a protobuf, outermost level only.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next field's number and value; `Some(None)` at the end, `None` for what is not a protobuf.
    fn next(&mut self) -> Option<Option<(u64, Value)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.skip(8).map(|()| Value::Fixed)?,
            2 => {
                let length = self.number()?;
                self.skip(usize::try_from(length).ok()?).map(|()| Value::Bytes)?
            }
            5 => self.skip(4).map(|()| Value::Fixed)?,
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    /// A number of seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.0 = self.0.get(length..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `pk_id` 7, `spk_id` 300, `ik`, `ek`, and a message.
    const OMEMO_2: &[u8] = b"\x08\x07\x10\xac\x02\x1a\x02ik\x22\x02ek\x2a\x03msg";
    /// Version 3, `preKeyId` 300, `baseKey`, `identityKey`, message, `registrationId`, `signedPreKeyId`.
    const LEGACY: &[u8] = b"\x33\x08\xac\x02\x12\x02bk\x1a\x02ik\x22\x03msg\x28\x05\x30\x09";
    /// Version 3, `ratchetKey`, counter, previous counter, ciphertext, and the MAC after it.
    const PLAIN: &[u8] = b"\x33\x0a\x02rk\x10\x01\x18\x00\x22\x02ct12345678";

    fn id(protocol: Protocol, marked: bool, bytes: &[u8]) -> Option<u32> {
        prekey_id(protocol, marked, &STANDARD.encode(bytes)).map(PrekeyId::get)
    }

    #[test]
    fn the_id_is_read_in_both_formats_and_the_mark_matters_only_in_one() {
        assert_eq!(id(Protocol::Omemo2, true, OMEMO_2), Some(7));
        assert_eq!(id(Protocol::Omemo2, false, OMEMO_2), None);
        for marked in [true, false] {
            assert_eq!(id(Protocol::Legacy, marked, LEGACY), Some(300));
            assert_eq!(id(Protocol::Legacy, marked, PLAIN), None);
        }
        assert_eq!(id(Protocol::Omemo2, true, LEGACY), None);
        assert_eq!(id(Protocol::Legacy, true, OMEMO_2), None);
    }

    #[test]
    fn what_cannot_be_a_key_exchange_is_none() {
        let with = |start: &[u8]| [start, &OMEMO_2[2..]].concat();
        for bytes in [
            &[][..],
            &OMEMO_2[2..],
            &OMEMO_2[..OMEMO_2.len() - 1],
            &OMEMO_2[..2],
            &with(b"\x08\x00"),
            &with(b"\x08\xff\xff\xff\xff\x0f"),
            &with(b"\x0a\x01x"),
            &with(&[&b"\x08"[..], &[0xff; 11]].concat()),
            &with(b"\x0b"),
        ] {
            assert_eq!(id(Protocol::Omemo2, true, bytes), None, "{bytes:?}");
        }
        assert_eq!(id(Protocol::Legacy, true, &[&[0x23], &LEGACY[1..]].concat()), None);
        assert_eq!(prekey_id(Protocol::Omemo2, true, "not base64!"), None);
        let long = [OMEMO_2, &[0x2a, 0xff, 0x7f], &[0; 0x3fff]].concat();
        assert_eq!(id(Protocol::Omemo2, true, &long), None);
        assert_eq!(id(Protocol::Omemo2, true, &[OMEMO_2, &b"\x30\x01".repeat(MAX_FIELDS)].concat()), None);
    }

    #[test]
    fn headers_count_for_the_accounts_that_the_message_goes_to() {
        let key = STANDARD.encode(OMEMO_2);
        let source = format!(
            "<message><encrypted xmlns='urn:xmpp:omemo:2'><header sid='9'>\
             <keys jid='bob@example.org'><key rid='1' kex='true'>{key}</key><key rid='2'>{key}</key></keys>\
             <keys jid='alice\\40example.org@multiend.example.org'><key rid='3' kex='1'>{key}</key></keys>\
             <keys jid='eve@example.net'><key rid='4' kex='true'>{key}</key></keys></header></encrypted>\
             <encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='8'><key rid='5'>{}</key></header></encrypted>\
             </message>",
            STANDARD.encode(LEGACY)
        );
        let tree = Element::parse(source.as_bytes()).unwrap();
        let sender = Requester::parse("alice@example.org/phone").unwrap();
        let found = find(&tree, &sender, &Owner::parse("bob@example.org").unwrap());
        let found: Vec<_> = found
            .iter()
            .map(|found| {
                (found.owner.as_str(), found.device.get(), found.prekey.get(), found.sender_device.map(|d| d.get()))
            })
            .collect();
        assert_eq!(
            found,
            [
                ("bob@example.org", 1, 7, Some(9)),
                ("alice@example.org", 3, 7, Some(9)),
                ("bob@example.org", 5, 300, Some(8)),
                ("alice@example.org", 5, 300, Some(8)),
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_fault(bytes: Vec<u8>, text: String, marked: bool) {
            for protocol in Protocol::ALL {
                let _ = id(protocol, marked, &bytes);
                let _ = prekey_id(protocol, marked, &text);
            }
        }

        #[test]
        fn any_id_is_read_back(number in 1..0x8000_0000_u32, padding in 0..3_usize) {
            let mut bytes = vec![0x08];
            let mut rest = number;
            while rest >= 0x80 {
                bytes.push((rest as u8) | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            // Field 15, unknown to both formats.
            bytes.extend([&b"\x78\x01"[..]].repeat(padding).concat());
            bytes.extend(b"\x22\x01m\x2a\x01m");
            prop_assert_eq!(id(Protocol::Omemo2, true, &bytes), Some(number));
            prop_assert_eq!(id(Protocol::Legacy, false, &[&[0x34], &bytes[..]].concat()), Some(number));
        }
    }
}
