//! Two instances of multiend under two component JIDs, and a database that goes away.

use crate::support::multiend::Multiend;
use crate::support::plugin::prosody;
use crate::support::postgres::{Fsync, Postgres};
use crate::support::xmpp::Client;
use crate::support::{DOMAIN, SECRET};
use crate::{BOB, OMEMO, archived_until, send};

#[tokio::test]
async fn when_one_of_two_instances_dies_the_other_takes_over_without_loss() {
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    let second = "multiend2.example.org";
    let server = prosody(&["alice", "bob"])
        .component(second, SECRET, "")
        .host("multiend_components = { \"multiend.example.org\", \"multiend2.example.org\" }")
        .start();
    let mut one = Multiend::builder(server.component_port()).database(&url).start();
    let two = Multiend::builder(server.component_port()).component(second, SECRET).database(&url).start();
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    let mut expected = Vec::new();
    for round in 0..6 {
        for n in 0..40 {
            let id = format!("m{round}-{n}");
            send(&mut alice, BOB, &id, OMEMO).await;
            expected.push(id);
            if n == 20 {
                match round % 3 {
                    0 => one.kill9(),
                    1 => one.spawn(),
                    _ => {}
                }
            }
        }
        alice.everything_until_pong(DOMAIN).await;
        let last = expected.last().unwrap().clone();
        assert_eq!(archived_until(&mut bob, &last).await, expected, "round {round}");
    }
    assert!(two.metric("multiend_link_reconnects_total") < 0.5);
}
