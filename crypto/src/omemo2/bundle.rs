//! The `<bundle/>` element (XEP-0384, "Bundles").

use super::NAMESPACE;
use crate::{
    bundle::{Bundle, BundleError, MAX_BUNDLE_LENGTH, MAX_PREKEYS, Prekey, SignedPrekey, key_in, signature_in},
    curve25519::KEY_LENGTH,
    generation::Omemo2,
    identity::IdentityKey,
    xml::{Element, Limits, encode_base64},
};

/// Writes the element.
pub(super) fn write(bundle: &Bundle<Omemo2>) -> String {
    let SignedPrekey { id, key, signature } = &bundle.signed_prekey;
    let mut xml = format!(
        "<bundle xmlns='{NAMESPACE}'><spk id='{id}'>{}</spk><spks>{}</spks><ik>{}</ik><prekeys>",
        encode_base64(key.as_bytes()),
        encode_base64(signature),
        encode_base64(bundle.identity.as_bytes()),
    );
    for Prekey { id, key } in &bundle.prekeys {
        xml.push_str(&format!("<pk id='{id}'>{}</pk>", encode_base64(key.as_bytes())));
    }
    xml.push_str("</prekeys></bundle>");
    xml
}

/// Reads the element.
pub(super) fn read(xml: &str) -> Result<Bundle<Omemo2>, BundleError> {
    let limits = Limits { bytes: MAX_BUNDLE_LENGTH, elements: MAX_PREKEYS.saturating_add(16), depth: 8 };
    let bundle = Element::parse(xml, limits)?.expect("bundle", NAMESPACE)?;
    let spk = bundle.child("spk")?;
    let identity = bundle.child("ik")?.base64("ik", KEY_LENGTH)?;
    let prekey = |pk: &Element| Ok(Prekey { id: pk.id("id")?, key: key_in::<Omemo2>("pk", pk)? });
    let prekeys = match bundle.all("prekeys").next() {
        Some(prekeys) => prekeys.all("pk").map(prekey).collect::<Result<_, BundleError>>()?,
        None => Vec::new(),
    };
    Ok(Bundle {
        identity: IdentityKey::from_slice(&identity).map_err(|error| BundleError::Key { element: "ik", error })?,
        signed_prekey: SignedPrekey {
            id: spk.id("id")?,
            key: key_in::<Omemo2>("spk", spk)?,
            signature: signature_in("spks", bundle.child("spks")?)?,
        },
        prekeys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::KeyId,
        curve25519::{KeyError, SecretKey},
        identity::IdentityKeyPair,
        signature::SignatureError,
        xml::XmlError,
    };

    fn bundle() -> Bundle<Omemo2> {
        let identity = IdentityKeyPair::from_seed(&[1; 32]);
        let key = SecretKey::from_bytes([2; 32]).public_key();
        let prekey =
            |id| Prekey { id: KeyId::new(u32::from(id)).unwrap(), key: SecretKey::from_bytes([id; 32]).public_key() };
        Bundle {
            identity: identity.public_key(),
            signed_prekey: SignedPrekey { id: KeyId::new(1).unwrap(), key, signature: identity.sign(key.as_bytes()) },
            prekeys: (1..=100).map(prekey).collect(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let bundle = bundle();
        let read = Bundle::from_xml(&bundle.to_xml()).unwrap();
        assert_eq!(read, bundle);
        assert_eq!(read.verify(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let xml = bundle().to_xml();
        let with = |from: &str, to: &str| Bundle::<Omemo2>::from_xml(&xml.replace(from, to)).unwrap_err();
        let zero = encode_base64(&[0; 32]);
        let key = encode_base64(bundle().prekeys[4].key.as_bytes());
        assert_eq!(with(&key, &zero), BundleError::Key { element: "pk", error: KeyError::LowOrder });
        assert_eq!(with("<pk id='5'>", "<pk id='0'>"), BundleError::Xml(XmlError::Attribute("id")));
        assert_eq!(with("ik>", "key>"), BundleError::Xml(XmlError::Missing("ik")));

        let mut forged = bundle();
        forged.signed_prekey.key = SecretKey::from_bytes([3; 32]).public_key();
        assert_eq!(forged.verify(), Err(BundleError::Signature(SignatureError::Mismatch)));
    }
}
