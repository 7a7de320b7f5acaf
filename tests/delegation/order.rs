//! What the end of a page stands on: a server that does not let a message through says so before it answers a ping that was
//! sent behind it. Seen here without the door, on the connection itself.

use std::time::Duration;

use bytes::Bytes;
use jid::DomainPart;
use multiend::link::{Link, LinkConfig, LinkMetrics, LinkState, StanzaHead};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::stock::*;
use crate::support::xmpp::{Client, DEADLINE};
use crate::support::{COMPONENT, DOMAIN, SECRET};

on_both_servers!(a_server_refuses_before_it_answers_the_ping_behind);

async fn a_server_refuses_before_it_answers_the_ping_behind<S: Stock>() {
    for granted in [true, false] {
        let server = S::delegating(&["alice"], &[], granted);
        let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
        alice.online().await;
        let name = |name: &str| DomainPart::new(name).unwrap().into_owned();
        let address = format!("127.0.0.1:{}", server.component_port());
        let config = LinkConfig::new(address, name(COMPONENT), name(DOMAIN), SECRET.into());
        let (sender, mut inbound) = mpsc::channel(1_000);
        let metrics = LinkMetrics::register(&Registry::new()).unwrap();
        let mut link = Link::start(config, metrics, sender, CancellationToken::new());
        timeout(DEADLINE, link.state.wait_for(|state| *state == LinkState::Up)).await.unwrap().unwrap();
        if granted {
            // Its grants come before anything is sent.
            while !String::from_utf8_lossy(&next(&mut inbound).await).contains("outgoing") {}
        }
        let version = if S::KIND == crate::support::plugin::Kind::Ejabberd { 1 } else { 2 };
        for round in 0..20 {
            let message = |from: &str, n: u32| {
                format!(
                    "<message from='{COMPONENT}' to='{DOMAIN}' id='page-{round}'><privilege xmlns='urn:xmpp:privilege:{version}'>\
                     <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='{from}' to='alice@example.org/phone'>\
                     <result xmlns='{MAM}' id='{n}'/></message></forwarded></privilege></message>"
                )
            };
            let mut stanzas: Vec<_> = (0..30).map(|n| message(ALICE, n)).collect();
            // The very last one is what no server lets through.
            stanzas.push(message("alice@elsewhere.example", 30));
            stanzas.push(format!(
                "<iq type='get' id='page-{round}' from='{COMPONENT}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>"
            ));
            for stanza in stanzas {
                link.outbox.send(Bytes::from(stanza)).await.unwrap();
            }
            let mut refused = 0;
            loop {
                let bytes = next(&mut inbound).await;
                let head = StanzaHead::read(&bytes);
                match head.stanza_type.as_deref() {
                    Some("error") if bytes.starts_with(b"<message") => {
                        assert_eq!(head.id.as_deref(), Some(format!("page-{round}").as_str()));
                        refused += 1;
                    }
                    // Whatever else it asks, as what is delegated.
                    Some("get" | "set") | None => {}
                    _ => {
                        assert_eq!(head.id.as_deref(), Some(format!("page-{round}").as_str()));
                        break;
                    }
                }
            }
            assert_eq!(refused, if granted { 1 } else { 31 }, "all of it before the answer");
        }
        if granted {
            for n in (0..20).flat_map(|_| 0..30_u32) {
                let stanza = alice.wait_for("a result", |e| e.has_child("result", MAM)).await;
                assert_eq!(
                    stanza.get_child("result", MAM).unwrap().attr("id"),
                    Some(n.to_string().as_str()),
                    "in order"
                );
            }
        }
        drop(link);
    }
}

async fn next(inbound: &mut mpsc::Receiver<multiend::link::RawStanza>) -> Bytes {
    timeout(DEADLINE + Duration::from_secs(5), inbound.recv()).await.unwrap().unwrap().bytes
}
