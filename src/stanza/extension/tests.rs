use super::*;
use crate::model::{Prekey, PrekeyId, SignedPrekey};

const OMEMO: &str = "protocol='urn:xmpp:omemo:2'";

fn parse(xml: &str, is_set: bool) -> Result<Request, StanzaError> {
    Request::parse(&Element::parse(xml.as_bytes()).unwrap(), is_set)
}

fn condition(xml: &str, is_set: bool) -> Condition {
    parse(xml, is_set).unwrap_err().condition
}

fn id(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

#[test]
fn a_claim_names_accounts_and_devices_once_each() {
    let xml = format!(
        "<claim xmlns='{MULTIEND}' {OMEMO} strict='1'><account jid='bob@example.org'><device id='2'/><device id='1'/>\
         <device id='2'/></account><account/></claim>"
    );
    let Request::Claim(claim) = parse(&xml, true).unwrap() else { panic!("a claim") };
    assert!(claim.strict);
    assert_eq!(claim.accounts[0].devices, [id(2), id(1)]);
    assert_eq!((claim.accounts[1].jid.as_ref(), claim.accounts[1].devices.len()), (None, 0));
}

#[test]
fn what_is_wrong_with_a_claim_is_said() {
    let claim = |attributes: &str, inner: &str| format!("<claim xmlns='{MULTIEND}' {attributes}>{inner}</claim>");
    let bob = "<account jid='bob@example.org'/>";
    for (attributes, inner) in [
        ("", bob),
        ("protocol='urn:xmpp:omemo:1'", bob),
        (OMEMO, ""),
        (&format!("{OMEMO} strict='maybe'"), bob),
        (OMEMO, "<account jid='bob@example.org/phone'/>"),
        (OMEMO, "<account jid='@'/>"),
        (OMEMO, "<account><device id='0'/></account>"),
        (OMEMO, "<account><device/></account>"),
        (OMEMO, &bob.repeat(2)),
    ] {
        assert_eq!(condition(&claim(attributes, inner), true), Condition::BadRequest, "{attributes} {inner}");
    }
    let devices: String = (1..=200).map(|n| format!("<device id='{n}'/>")).collect();
    let many = format!("<account jid='a@b'>{devices}</account><account jid='c@d'>{devices}</account>");
    assert_eq!(condition(&claim(OMEMO, &many), true), Condition::PolicyViolation);
    let many: String = (0..=claim::MAX_ACCOUNTS).map(|n| format!("<account jid='u{n}@b'/>")).collect();
    assert_eq!(condition(&claim(OMEMO, &many), true), Condition::PolicyViolation);
    assert_eq!(condition(&claim(OMEMO, bob), false), Condition::FeatureNotImplemented, "a claim changes something");
}

#[test]
fn a_full_claim_fits_into_a_stanza() {
    let handed = claim::Handed {
        identity_key: vec![5; 33],
        signed_prekey: SignedPrekey { id: 0x7fff_ffff, key: vec![5; 33], signature: vec![1; 64] },
        prekey: Prekey { id: PrekeyId::new(0x7fff_ffff).unwrap(), key: vec![5; 33] },
    };
    let account = |accounts: usize| claim::Answer {
        jid: Some(jid::BareJid::new(&format!("{}@example.org", "a".repeat(1000))).unwrap()),
        devices: Ok(vec![(id(0x7fff_ffff), Ok(handed.clone())); claim::MAX_DEVICES / accounts]),
    };
    let answers: Vec<_> = (0..claim::MAX_ACCOUNTS).map(|_| account(claim::MAX_ACCOUNTS)).collect();
    for protocol in Protocol::ALL {
        let length = claim::result(protocol, &answers).len();
        assert!(length < 400 * 1024, "{length}");
    }
}

#[test]
fn one_device_is_added_with_its_label() {
    let add = |attributes: &str| format!("<add-device xmlns='{MULTIEND}' {attributes}/>");
    let labelled = parse(&add(&format!("{OMEMO} device='7' label='a&lt;b' labelsig='c2ln'")), true).unwrap();
    let Request::AddDevice(added) = labelled else { panic!("an addition") };
    assert_eq!((added.device.id, added.device.label.as_deref()), (id(7), Some("a<b")));
    let legacy = add("protocol='eu.siacs.conversations.axolotl' device='7' label='x'");
    let Request::AddDevice(added) = parse(&legacy, true).unwrap() else { panic!("an addition") };
    assert_eq!(added.device.label, None, "the legacy protocol has no labels");
    assert_eq!(condition(&add(&format!("{OMEMO} device='0'")), true), Condition::BadRequest);
    assert_eq!(
        condition(&add(&format!("{OMEMO} device='7' label='{}'", "x".repeat(200))), true),
        Condition::BadRequest
    );
}

#[test]
fn an_empty_stock_says_zero() {
    let device = Device { protocol: Protocol::Omemo2, id: id(7) };
    let result = stock::result(device, &[(PrekeyId::new(3).unwrap(), stock::State::Consumed)]);
    assert_eq!(
        result,
        "<stock xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='7' unissued='0' issued='0' consumed='1'>\
         <prekey id='3' state='consumed'/></stock>"
    );
    let notice = notice::payload(device, notice::Notice::LowStock { unissued: 0 });
    assert_eq!(notice, "<low-stock xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='7' unissued='0'/>");
}
