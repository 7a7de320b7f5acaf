//! Reads one stanza as the doors do, with every parser behind them, and checks what must hold of whatever comes: shared by
//! the fuzz target `stanza` and the property test `tests/stanza_parsers.rs`.

use multiend::archive::view::Viewer;
use multiend::archive::{Verdict, classify};
use multiend::door::service::Payload;
use multiend::link::Limits;
use multiend::link::framer::{Event, Framer};
use multiend::model::{DeviceId, DeviceList, Owner, Protocol, Requester};
use multiend::stanza::incoming::{Incoming, Kind};
use multiend::stanza::message::{Message, assemble};
use multiend::stanza::stock_delegation::{self, Delegated};
use multiend::stanza::tree::Element;
use multiend::stanza::{bundle, device_list, ephemeral, extension, key_exchange, omemo, privilege, pubsub};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>";

/// Reads the body of a stream. Panics if anything is wrong.
pub fn read_everything(body: &[u8]) {
    let mut framer = Framer::new(Limits::default());
    framer.feed(HEADER);
    framer.feed(body);
    while let Ok(Some(event)) = framer.next_event() {
        if let Event::Element(element) = event {
            read_stanza(&element.bytes);
        }
    }
}

fn read_stanza(bytes: &[u8]) {
    let Ok(incoming) = Incoming::parse(bytes) else { return };
    assert_eq!(incoming.element.raw().as_bytes(), bytes);
    match incoming.kind {
        Kind::Message(_) => read_message(&incoming.element),
        Kind::IqGet | Kind::IqSet => incoming.element.children().iter().for_each(read_payload),
        Kind::IqReply | Kind::Presence | Kind::BadType => {}
    }
}

fn read_message(stanza: &Element<'_>) {
    let _ = (privilege::granted(stanza), stock_delegation::delegated_namespaces(stanza));
    let Ok(message) = Message::split(stanza, &[]) else { return };
    // What was taken apart can be put together, and is then the same message.
    let relayed = assemble(&message.body, Some("a@b"), Some("c@d"), None, "<x xmlns='urn:x'/>").expect("our own body");
    let again = Element::parse(relayed.as_bytes()).expect("what we send is well-formed");
    assert_eq!(again.children().len(), stanza.children().len() + 1);
    let split_again = Message::split(&again, &[]).expect("a message");
    assert_eq!((split_again.kind, split_again.id), (message.kind, message.id));

    let verdict = classify(stanza);
    let _ = ephemeral::timer(stanza);
    let encrypted = omemo::find(stanza);
    if encrypted.iter().any(|encrypted| encrypted.has_payload) {
        assert!(!matches!(verdict, Verdict::Archive(multiend::model::Class::Plain)), "encrypted is never plain");
    }
    let (Ok(owner), Ok(device)) = (Owner::parse("c@d"), DeviceId::new(1)) else { return };
    let Ok(sender) = Requester::parse("a@b/c") else { return };
    assert!(key_exchange::find(stanza, &sender, &owner).len() <= key_exchange::MAX_EXCHANGES);
    let viewer =
        Protocol::ALL.into_iter().fold(Viewer::new(owner), |viewer, protocol| viewer.with_devices(protocol, [device]));
    let Ok(view) = viewer.view(&message.body) else { return };
    assert_eq!(view.body.len() + view.saved, message.body.len());
    let viewed = Element::parse(&view.body).expect("a view is well-formed");
    assert_eq!(viewed.children().len(), stanza.children().len(), "a view takes nothing but headers");
}

fn read_payload(payload: &Element<'_>) {
    read_wrapper(payload);
    for is_set in [false, true] {
        match Payload::parse(payload, is_set) {
            Ok(Payload::Extension(request)) => read_extension(&request),
            Err(error) => assert!(Element::parse(error.to_xml().as_bytes()).is_ok(), "what we send is well-formed"),
            Ok(_) => {}
        }
        if let Ok(Payload::Pubsub(pubsub::Request::Publish { payload, .. })) = Payload::parse(payload, is_set) {
            for protocol in Protocol::ALL {
                if let Ok(list) = device_list::parse(payload, protocol) {
                    let written = device_list::write(&list, protocol);
                    let again = Element::parse(written.as_bytes()).expect("what we send is well-formed");
                    assert_eq!(device_list::parse(&again, protocol).expect("our own list"), list);
                }
                if let Ok(read) = bundle::parse(payload, protocol) {
                    let written = bundle::write(&read.identity_key, &read.signed_prekey, &read.prekeys, protocol);
                    let again = Element::parse(written.as_bytes()).expect("what we send is well-formed");
                    assert_eq!(bundle::parse(&again, protocol).expect("our own bundle"), read);
                }
            }
            let standalone = payload.standalone();
            let again = Element::parse(standalone.as_bytes()).expect("what we store is well-formed");
            assert_eq!((again.name(), again.namespace()), (payload.name(), payload.namespace()));
        }
    }
}

/// An answer to a wrapped request repeats its addresses and id as they were, or servers throw it away.
fn read_wrapper(wrapper: &Element<'_>) {
    let Ok(asked) = Delegated::parse(wrapper) else { return };
    let iq = &wrapper.children()[0].child("iq", "").expect("a request");
    let answer = asked.answer(Ok("<fin xmlns='urn:xmpp:mam:2'/>"));
    let answer = Element::parse(answer.as_bytes()).expect("what we send is well-formed");
    assert_eq!((answer.name(), answer.namespace()), (wrapper.name(), wrapper.namespace()));
    let answered = &answer.children()[0].children()[0];
    assert_eq!((answered.attribute("to"), answered.attribute("id")), (iq.attribute("from"), iq.attribute("id")));
    assert!(iq.attribute("to").is_none_or(|to| answered.attribute("from") == Some(to)));
    if let Some((payload, is_set)) = asked.payload() {
        let _ = Payload::parse(payload, is_set);
    }
}

fn read_extension(request: &extension::Request) {
    match request {
        extension::Request::Claim(claim) => {
            let devices = claim.accounts.iter().map(|account| account.devices.len());
            assert!(claim.accounts.len() <= extension::claim::MAX_ACCOUNTS);
            assert!(devices.sum::<usize>() <= extension::claim::MAX_DEVICES);
        }
        extension::Request::AddDevice(added) => {
            let list = DeviceList::new(vec![added.device.clone()]).expect("one device");
            let written = extension::device::result(&list, added.protocol);
            assert!(Element::parse(written.as_bytes()).is_ok(), "what we send is well-formed");
        }
        extension::Request::Stock(stock) => assert!(stock.others.len() <= extension::stock::MAX_OTHERS),
        extension::Request::RemoveDevice(_) | extension::Request::Check(_) => {}
    }
}
