//! Bundles: `<bundle/>` in `urn:xmpp:omemo:2` (XEP-0384 §5.3.2) and in `eu.siacs.conversations.axolotl` (XEP-0384 0.3).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};

use super::namespace;
use super::tree::{Element, push_attribute};
use crate::model::{Bundle, BundleShapeError, IdError, Prekey, PrekeyId, Protocol, SignedPrekey};

/// Base64 as clients write it: some leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Longest base64 text of a key or signature that is looked at; 64 bytes take 88, line breaks included a few more.
const MAX_TEXT: usize = 256;

/// Why a payload is not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Another element or namespace.
    #[error("the payload of a bundle is <bundle xmlns='{0}'/>")]
    Payload(&'static str),
    /// A part is missing.
    #[error("the bundle has no <{0}/>")]
    Missing(&'static str),
    /// A key or signature is not base64.
    #[error("<{0}/> does not hold base64")]
    Base64(&'static str),
    /// A prekey without a valid id.
    #[error("a prekey id is missing or wrong: {0}")]
    PrekeyId(#[from] IdError),
    /// The signed prekey has no valid id.
    #[error("the id of the signed prekey must lie between 0 and 2147483647")]
    SignedPrekeyId,
    /// Lengths, counts, uniqueness.
    #[error(transparent)]
    Shape(#[from] BundleShapeError),
}

/// How one protocol calls the parts of a bundle.
struct Names {
    namespace: &'static str,
    signed_prekey: (&'static str, &'static str),
    signature: &'static str,
    identity_key: &'static str,
    prekey: (&'static str, &'static str),
}

const OMEMO_2: Names = Names {
    namespace: namespace::OMEMO_2,
    signed_prekey: ("spk", "id"),
    signature: "spks",
    identity_key: "ik",
    prekey: ("pk", "id"),
};

const LEGACY: Names = Names {
    namespace: namespace::OMEMO_LEGACY,
    signed_prekey: ("signedPreKeyPublic", "signedPreKeyId"),
    signature: "signedPreKeySignature",
    identity_key: "identityKey",
    prekey: ("preKeyPublic", "preKeyId"),
};

fn names(protocol: Protocol) -> &'static Names {
    match protocol {
        Protocol::Legacy => &LEGACY,
        Protocol::Omemo2 => &OMEMO_2,
    }
}

/// Reads the payload of a published bundle and checks its shape, not its signature.
pub fn parse(payload: &Element<'_>, protocol: Protocol) -> Result<Bundle, BundleError> {
    let names = names(protocol);
    if !payload.is("bundle", names.namespace) {
        return Err(BundleError::Payload(names.namespace));
    }
    let part = |name| payload.child(name, names.namespace).ok_or(BundleError::Missing(name));
    let signed = part(names.signed_prekey.0)?;
    let signed_id = signed.attribute(names.signed_prekey.1).unwrap_or_default();
    let signed_id =
        if signed_id == "0" { 0 } else { PrekeyId::parse(signed_id).map_err(|_| BundleError::SignedPrekeyId)?.get() };
    let mut prekeys = Vec::new();
    for element in part("prekeys")?.children_named(names.prekey.0, names.namespace) {
        prekeys.push(Prekey {
            id: PrekeyId::parse(element.attribute(names.prekey.1).unwrap_or_default())?,
            key: decode(element, names.prekey.0)?,
        });
    }
    let bundle = Bundle {
        identity_key: decode(part(names.identity_key)?, names.identity_key)?,
        signed_prekey: SignedPrekey {
            id: signed_id,
            key: decode(signed, names.signed_prekey.0)?,
            signature: decode(part(names.signature)?, names.signature)?,
        },
        prekeys,
    };
    bundle.check_shape(protocol)?;
    Ok(bundle)
}

fn decode(element: &Element<'_>, name: &'static str) -> Result<Vec<u8>, BundleError> {
    if element.text().len() > MAX_TEXT {
        return Err(BundleError::Base64(name));
    }
    let text: String = element.text().chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64.decode(text).map_err(|_| BundleError::Base64(name))
}

/// Writes a bundle with the prekeys given, as the payload of a pubsub item: what a requester gets.
pub fn write(identity_key: &[u8], signed_prekey: &SignedPrekey, prekeys: &[Prekey], protocol: Protocol) -> String {
    let names = names(protocol);
    let mut out = String::with_capacity(512);
    let leaf = |out: &mut String, name: &str, id: Option<(&str, u32)>, bytes: &[u8]| {
        out.push('<');
        out.push_str(name);
        if let Some((attribute, id)) = id {
            push_attribute(out, attribute, &id.to_string());
        }
        out.push('>');
        general_purpose::STANDARD.encode_string(bytes, out);
        out.push_str("</");
        out.push_str(name);
        out.push('>');
    };
    out.push_str("<bundle");
    push_attribute(&mut out, "xmlns", names.namespace);
    out.push('>');
    let (name, id) = names.signed_prekey;
    leaf(&mut out, name, Some((id, signed_prekey.id)), &signed_prekey.key);
    leaf(&mut out, names.signature, None, &signed_prekey.signature);
    leaf(&mut out, names.identity_key, None, identity_key);
    out.push_str("<prekeys>");
    for prekey in prekeys {
        leaf(&mut out, names.prekey.0, Some((names.prekey.1, prekey.id.get())), &prekey.key);
    }
    out.push_str("</prekeys></bundle>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(protocol: Protocol) -> Bundle {
        let key = |n: u8| match protocol {
            Protocol::Omemo2 => vec![n; 32],
            Protocol::Legacy => [&[5][..], &[n; 32]].concat(),
        };
        Bundle {
            identity_key: key(1),
            signed_prekey: SignedPrekey { id: 0, key: key(2), signature: vec![3; 64] },
            prekeys: (1..=3).map(|n| Prekey { id: PrekeyId::new(n).unwrap(), key: key(10 + n as u8) }).collect(),
        }
    }

    fn text(bundle: &Bundle, protocol: Protocol) -> String {
        write(&bundle.identity_key, &bundle.signed_prekey, &bundle.prekeys, protocol)
    }

    fn read(xml: &str, protocol: Protocol) -> Result<Bundle, BundleError> {
        parse(&Element::parse(xml.as_bytes()).unwrap(), protocol)
    }

    #[test]
    fn bundles_of_both_protocols_are_read_and_written() {
        for protocol in Protocol::ALL {
            let bundle = sample(protocol);
            assert_eq!(read(&text(&bundle, protocol), protocol).unwrap(), bundle);
        }
    }

    #[test]
    fn base64_may_be_broken_into_lines_and_lack_padding() {
        let bundle = sample(Protocol::Omemo2);
        let padded = text(&bundle, Protocol::Omemo2);
        let xml = padded.replace("==<", "<").replace("=<", "<").replace("AQEB", "AQEB\n ");
        assert_ne!(xml, padded);
        assert_eq!(read(&xml, Protocol::Omemo2).unwrap(), bundle);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = text(&sample(Protocol::Omemo2), Protocol::Omemo2);
        let broken = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            read(&good.replacen(from, to, 1), Protocol::Omemo2)
        };
        assert!(matches!(broken("<pk id='1'", "<pk id='0'"), Err(BundleError::PrekeyId(_))));
        assert!(matches!(broken("<pk id='1'", "<pk id='2147483648'"), Err(BundleError::PrekeyId(_))));
        assert!(matches!(
            broken("<pk id='1'", "<pk id='2'"),
            Err(BundleError::Shape(BundleShapeError::DuplicateId(_)))
        ));
        assert!(matches!(broken("<spk id='0'", "<spk id='-1'"), Err(BundleError::SignedPrekeyId)));
        assert!(matches!(broken("<ik>", "<ik>!"), Err(BundleError::Base64("ik"))));
        assert!(matches!(broken("<ik>AQEB", "<ik>"), Err(BundleError::Shape(BundleShapeError::Key(_)))));
        assert!(matches!(
            read("<bundle xmlns='urn:xmpp:omemo:2'/>", Protocol::Omemo2),
            Err(BundleError::Missing("spk"))
        ));
        let empty = format!("{}<prekeys></prekeys></bundle>", good.split("<prekeys>").next().unwrap());
        assert!(matches!(read(&empty, Protocol::Omemo2), Err(BundleError::Shape(BundleShapeError::NoPrekeys))));
        assert!(matches!(read(&good, Protocol::Legacy), Err(BundleError::Payload(_))));
    }
}
