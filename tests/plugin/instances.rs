//! Two instances of multiend, and a database that goes away.

use crate::support::multiend::Multiend;
use crate::support::plugin::{Kind, Server as _};
use crate::support::postgres::{Fsync, Postgres};
use crate::support::xmpp::Client;
use crate::support::{COMPONENT, DOMAIN, SECRET};
use crate::{BOB, Deployment, OMEMO, Server, archived_until, send};

#[tokio::test]
async fn when_one_of_two_instances_dies_the_other_takes_over_without_loss() {
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    // Prosody takes one connection of each component, ejabberd several.
    let (deployment, second) = match Server::KIND {
        Kind::Prosody => {
            let second = "multiend2.example.org";
            (Deployment::new(&["alice", "bob"]).components(&[COMPONENT, second]), second)
        }
        Kind::Ejabberd => (Deployment::new(&["alice", "bob"]), COMPONENT),
    };
    let server = deployment.start();
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

#[tokio::test]
async fn a_database_that_goes_away_loses_nothing_and_reorders_nothing() {
    let mut postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    let server = Deployment::new(&["alice", "bob"]).option("timeout", 2).start();
    let mut multiend = Multiend::builder(server.component_port()).database(&url).start();
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..60 {
            let id = format!("m{round}-{n}");
            send(&mut alice, BOB, &id, OMEMO).await;
            expected.push(id);
            match (round, n) {
                (0 | 1, 20) => postgres.kill9(),
                // A batch that was accepted and never stored dies with it.
                (1, 30) => multiend.kill9(),
                _ => {}
            }
        }
        alice.everything_until_pong(DOMAIN).await;
        match round {
            0 => postgres.restart(),
            1 => {
                postgres.restart();
                multiend.restart();
            }
            _ => {}
        }
    }
    let last = expected.last().unwrap().clone();
    for client in [&mut alice, &mut bob] {
        assert_eq!(archived_until(client, &last).await, expected);
    }
}
