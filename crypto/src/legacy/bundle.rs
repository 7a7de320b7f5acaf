//! The `<bundle/>` element (XEP-0384 0.3.0, section 4.3).

use super::{IdentityKey, NAMESPACE};
use crate::{
    bundle::{
        Bundle, BundleError, MAX_BUNDLE_LENGTH, MAX_KEY_LENGTH, MAX_PREKEYS, Prekey, SignedPrekey, key_in, signature_in,
    },
    generation::Legacy,
    signature::encode_legacy_key,
    xml::{Element, Limits, encode_base64},
};

/// Writes the element.
pub(super) fn write(bundle: &Bundle<Legacy>) -> String {
    let SignedPrekey { id, key, signature } = &bundle.signed_prekey;
    let mut xml = format!(
        "<bundle xmlns='{NAMESPACE}'><signedPreKeyPublic signedPreKeyId='{id}'>{}</signedPreKeyPublic>\
         <signedPreKeySignature>{}</signedPreKeySignature><identityKey>{}</identityKey><prekeys>",
        encode_base64(&encode_legacy_key(key)),
        encode_base64(signature),
        encode_base64(&bundle.identity.to_bytes()),
    );
    for Prekey { id, key } in &bundle.prekeys {
        let key = encode_base64(&encode_legacy_key(key));
        xml.push_str(&format!("<preKeyPublic preKeyId='{id}'>{key}</preKeyPublic>"));
    }
    xml.push_str("</prekeys></bundle>");
    xml
}

/// Reads the element.
pub(super) fn read(xml: &str) -> Result<Bundle<Legacy>, BundleError> {
    let limits = Limits { bytes: MAX_BUNDLE_LENGTH, elements: MAX_PREKEYS.saturating_add(16), depth: 8 };
    let bundle = Element::parse(xml, limits)?.expect("bundle", NAMESPACE)?;
    let signed_prekey = bundle.child("signedPreKeyPublic")?;
    let identity = bundle.child("identityKey")?.base64("identityKey", MAX_KEY_LENGTH)?;
    let prekey =
        |element: &Element| Ok(Prekey { id: element.id("preKeyId")?, key: key_in::<Legacy>("preKeyPublic", element)? });
    let prekeys = match bundle.all("prekeys").next() {
        Some(prekeys) => prekeys.all("preKeyPublic").map(prekey).collect::<Result<_, BundleError>>()?,
        None => Vec::new(),
    };
    Ok(Bundle {
        identity: IdentityKey::from_slice(&identity)
            .map_err(|error| BundleError::Key { element: "identityKey", error })?,
        signed_prekey: SignedPrekey {
            id: signed_prekey.id("signedPreKeyId")?,
            key: key_in::<Legacy>("signedPreKeyPublic", signed_prekey)?,
            signature: signature_in("signedPreKeySignature", bundle.child("signedPreKeySignature")?)?,
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
        protocol::Protocol,
        signature::SignatureError,
        xml::XmlError,
    };

    fn bundle(seed: u8) -> Bundle<Legacy> {
        let identity = IdentityKeyPair::from_seed(&[seed; 32]);
        let key = SecretKey::from_bytes([2; 32]).public_key();
        let prekey =
            |id| Prekey { id: KeyId::new(u32::from(id)).unwrap(), key: SecretKey::from_bytes([id; 32]).public_key() };
        Bundle {
            identity: IdentityKey::from(&identity),
            signed_prekey: SignedPrekey {
                id: KeyId::new(1).unwrap(),
                key,
                signature: Legacy::sign_prekey(&identity, &key),
            },
            prekeys: (1..=100).map(prekey).collect(),
        }
    }

    /// With sixteen identities, both signs of the Edwards form occur.
    #[test]
    fn what_was_written_is_read_and_its_signature_holds() {
        for seed in 0..16 {
            let read = Bundle::from_xml(&bundle(seed).to_xml()).unwrap();
            assert_eq!(read, bundle(seed));
            assert_eq!(read.verify(), Ok(()));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let xml = bundle(1).to_xml();
        let with = |from: &str, to: &str| Bundle::<Legacy>::from_xml(&xml.replace(from, to)).unwrap_err();
        let wire = encode_legacy_key(&bundle(1).prekeys[4].key);
        let mut other_type = wire;
        other_type[0] = 0x06;
        assert_eq!(
            with(&encode_base64(&wire), &encode_base64(&other_type)),
            BundleError::Key { element: "preKeyPublic", error: KeyError::Type }
        );
        assert_eq!(
            with(&encode_base64(&wire), &encode_base64(&wire[1..])),
            BundleError::Key { element: "preKeyPublic", error: KeyError::Length { expected: 33, actual: 32 } }
        );
        assert_eq!(with("preKeyId='5'", "preKeyId='0'"), BundleError::Xml(XmlError::Attribute("preKeyId")));
        assert_eq!(with("identityKey>", "key>"), BundleError::Xml(XmlError::Missing("identityKey")));
        assert_eq!(with(NAMESPACE, "urn:xmpp:omemo:2"), BundleError::Xml(XmlError::Missing("bundle")));

        let mut forged = bundle(1);
        forged.signed_prekey.key = SecretKey::from_bytes([3; 32]).public_key();
        assert_eq!(forged.verify(), Err(BundleError::Signature(SignatureError::Mismatch)));
    }
}
