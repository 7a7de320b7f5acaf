//! Two users of the alias door, and what they ask of their archives.

use minidom::Element;

use crate::support::DOMAIN;
use crate::support::multiend::Multiend;
use crate::support::omemo::{TestDevice, publish};
use crate::support::prosody::Prosody;
use crate::support::xmpp::{Client, error_condition};

pub(crate) const ALICE: &str = r"alice\40example.org@multiend.example.org";
pub(crate) const BOB: &str = r"bob\40example.org@multiend.example.org";
pub(crate) const MAM: &str = "urn:xmpp:mam:2";
pub(crate) const RSM: &str = "http://jabber.org/protocol/rsm";

pub(crate) struct Setup {
    pub(crate) prosody: Prosody,
    pub(crate) multiend: Multiend,
    pub(crate) alice: Client,
    pub(crate) bob: Client,
}

/// Alice and bob, who have both used the service.
pub(crate) async fn setup(extra: &str) -> Setup {
    // What the server cannot deliver it bounces, instead of keeping it for later.
    let without_offline = "modules_disabled = { \"offline\" }\n";
    let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).host(without_offline).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).extra(extra).start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "phone").await;
    for (client, alias, device) in [(&mut alice, ALICE, 1), (&mut bob, BOB, 2)] {
        client.online().await;
        let bundle = TestDevice { id: device, seed: 1 }.bundle(1..=3);
        let published = client
            .request("set", Some(alias), &publish("urn:xmpp:omemo:2:bundles", &device.to_string(), &bundle))
            .await;
        assert_eq!(published.attr("type"), Some("result"));
    }
    Setup { prosody, multiend, alice, bob }
}

/// Sends a message and waits until it is stored; gives the id in the sender's archive.
pub(crate) async fn send(client: &mut Client, to: &str, id: &str, content: &str) -> String {
    client
        .send_raw(&format!(
            "<message type='chat' to='{to}' id='{id}'>{content}<request xmlns='urn:multiend:0'/></message>"
        ))
        .await;
    let archived = client
        .wait_for("the acknowledgement", |stanza| {
            stanza.get_child("archived", "urn:multiend:0").is_some_and(|archived| archived.attr("for") == Some(id))
        })
        .await;
    let stanza_id = archived.get_child("archived", "urn:multiend:0").unwrap().children().next().unwrap();
    stanza_id.attr("id").unwrap().to_owned()
}

pub(crate) struct Page {
    /// Archive id and forwarded message.
    pub(crate) results: Vec<(String, Element)>,
    pub(crate) fin: Element,
}

impl Page {
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.results.iter().map(|(_, message)| message.attr("id").unwrap_or_default()).collect()
    }

    pub(crate) fn end(&self, name: &str) -> String {
        self.fin.get_child("set", RSM).unwrap().get_child(name, RSM).map(Element::text).unwrap_or_default()
    }

    pub(crate) fn complete(&self) -> bool {
        self.fin.attr("complete") == Some("true")
    }
}

pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let fields: String =
        fields.iter().map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>")).collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>{MAM}</value></field>{fields}</x>"
    )
}

pub(crate) fn rsm(content: &str) -> String {
    format!("<set xmlns='{RSM}'>{content}</set>")
}

pub(crate) async fn query(client: &mut Client, archive: &str, content: &str) -> Page {
    let id = client.fresh_id();
    client
        .send_raw(&format!(
            "<iq type='set' id='{id}' to='{archive}'><query xmlns='{MAM}' queryid='q'>{content}</query></iq>"
        ))
        .await;
    let mut results = Vec::new();
    loop {
        let stanza = client.next_stanza().await;
        if let Some(result) = stanza.get_child("result", MAM) {
            assert_eq!((stanza.attr("from"), result.attr("queryid")), (Some(archive), Some("q")));
            let forwarded = result.children().next().unwrap();
            let message = forwarded.children().find(|child| child.name() == "message").unwrap();
            results.push((result.attr("id").unwrap().to_owned(), message.clone()));
        } else if stanza.attr("id") == Some(&id) {
            let fin = stanza.get_child("fin", MAM);
            return Page { results, fin: fin.unwrap_or_else(|| panic!("{}", String::from(&stanza))).clone() };
        }
    }
}

pub(crate) async fn refused(client: &mut Client, archive: &str, content: &str) -> String {
    let answer = client.request("set", Some(archive), &format!("<query xmlns='{MAM}'>{content}</query>")).await;
    error_condition(&answer).unwrap_or_else(|| panic!("{}", String::from(&answer))).to_owned()
}

pub(crate) async fn announce(client: &mut Client, alias: &str, device: u32) {
    let list = format!("<devices xmlns='urn:xmpp:omemo:2'><device id='{device}'/></devices>");
    let answer = client.request("set", Some(alias), &publish("urn:xmpp:omemo:2:devices", "current", &list)).await;
    assert_eq!(answer.attr("type"), Some("result"));
}
