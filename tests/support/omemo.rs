//! Bundles and device lists as a test's client publishes them, made here from fixed seeds: valid signatures, no sessions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use multiend_crypto::curve25519::SecretKey;
use multiend_crypto::identity::IdentityKeyPair;
use multiend_crypto::signature::{encode_legacy_key, sign_legacy};

pub const OMEMO_2: &str = "urn:xmpp:omemo:2";
pub const LEGACY: &str = "eu.siacs.conversations.axolotl";
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";

/// A device with a seed of its own.
#[derive(Clone, Copy)]
pub struct TestDevice {
    pub id: u32,
    pub seed: u8,
}

impl TestDevice {
    /// The key of its n-th prekey, `omemo2`.
    pub fn prekey(&self, n: u32) -> Vec<u8> {
        let mut seed = [self.seed; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_bytes(seed).public_key().as_bytes().to_vec()
    }

    /// `<bundle/>` of `omemo2` with the prekeys given.
    pub fn bundle(&self, prekeys: impl IntoIterator<Item = u32>) -> String {
        let identity = IdentityKeyPair::from_seed(&[self.seed; 32]);
        let signed = SecretKey::from_bytes([self.seed.wrapping_add(100); 32]).public_key();
        let signature = STANDARD.encode(identity.sign(signed.as_bytes()));
        let (signed, identity) =
            (STANDARD.encode(signed.as_bytes()), STANDARD.encode(identity.public_key().as_bytes()));
        let prekeys: String =
            prekeys.into_iter().map(|n| format!("<pk id='{n}'>{}</pk>", STANDARD.encode(self.prekey(n)))).collect();
        format!(
            "<bundle xmlns='{OMEMO_2}'><spk id='7'>{signed}</spk><spks>{signature}</spks><ik>{identity}</ik>\
             <prekeys>{prekeys}</prekeys></bundle>"
        )
    }

    /// `<bundle/>` of the legacy protocol with the prekeys given.
    pub fn legacy_bundle(&self, prekeys: impl IntoIterator<Item = u32>) -> String {
        let key = |secret: &SecretKey| STANDARD.encode(encode_legacy_key(&secret.public_key()));
        let identity = SecretKey::from_bytes([self.seed; 32]);
        let signed = SecretKey::from_bytes([self.seed.wrapping_add(100); 32]);
        let signature = STANDARD.encode(sign_legacy(&identity, &signed.public_key()).expect("randomness"));
        let prekeys: String = prekeys
            .into_iter()
            .map(|n| {
                let mut seed = [self.seed; 32];
                seed[..4].copy_from_slice(&n.to_be_bytes());
                format!("<preKeyPublic preKeyId='{n}'>{}</preKeyPublic>", key(&SecretKey::from_bytes(seed)))
            })
            .collect();
        format!(
            "<bundle xmlns='{LEGACY}'><signedPreKeyPublic signedPreKeyId='7'>{}</signedPreKeyPublic>\
             <signedPreKeySignature>{signature}</signedPreKeySignature><identityKey>{}</identityKey>\
             <prekeys>{prekeys}</prekeys></bundle>",
            key(&signed),
            key(&identity),
        )
    }
}

/// `<pubsub><publish/></pubsub>` with one item.
pub fn publish(node: &str, id: &str, payload: &str) -> String {
    format!("<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item id='{id}'>{payload}</item></publish></pubsub>")
}

/// `<pubsub><items/></pubsub>` for the items given; none: all.
pub fn items(node: &str, ids: &[&str]) -> String {
    let ids: String = ids.iter().map(|id| format!("<item id='{id}'/>")).collect();
    format!("<pubsub xmlns='{PUBSUB}'><items node='{node}'>{ids}</items></pubsub>")
}

/// A device list of `omemo2`.
pub fn devices(ids: &[u32]) -> String {
    let ids: String = ids.iter().map(|id| format!("<device id='{id}'/>")).collect();
    format!("<devices xmlns='{OMEMO_2}'>{ids}</devices>")
}

/// The items of an answer: id and payload.
pub fn items_of(answer: &Element) -> Vec<(String, Element)> {
    let items = answer.get_child("pubsub", PUBSUB).and_then(|pubsub| pubsub.get_child("items", PUBSUB));
    let items = items.unwrap_or_else(|| panic!("no items in {}", String::from(answer)));
    let one = |item: &Element| {
        (item.attr("id").unwrap_or_default().to_owned(), item.children().next().expect("a payload").clone())
    };
    items.children().map(one).collect()
}

/// The device ids of a list.
pub fn ids_of(list: &Element) -> Vec<u32> {
    list.children().map(|device| device.attr("id").expect("an id").parse().expect("a number")).collect()
}

/// The one-time prekeys of a bundle: id and key in base64.
pub fn prekeys_of(bundle: &Element) -> Vec<(u32, String)> {
    let prekeys = bundle.children().find(|child| child.name() == "prekeys").expect("prekeys");
    let id = |pk: &Element| pk.attr("id").or_else(|| pk.attr("preKeyId")).expect("an id").parse().expect("a number");
    prekeys.children().map(|pk| (id(pk), pk.text())).collect()
}
