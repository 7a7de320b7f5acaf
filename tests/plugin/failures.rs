//! Whatever dies, in any order: every message that the server took is archived, once, in order; and no request hangs.

use std::time::{Duration, Instant};

use crate::support::DOMAIN;
use crate::support::archive::query;
use crate::support::multiend::Multiend;
use crate::support::omemo::{devices, items, items_of, publish};
use crate::support::plugin::Server as _;
use crate::support::process::{poll, poll_async};
use crate::support::xmpp::{Client, DEADLINE, error_condition};
use crate::{ALICE, BOB, DEVICES, Deployment, OMEMO, Server, Setup, archived_until, send};

async fn client(server: &Server, user: &str) -> Client {
    let mut client = Client::connect(server.c2s_port(), DOMAIN, user, "phone").await;
    client.online().await;
    client
}

/// Sends messages `from..to` and returns when the server has taken them.
async fn send_taken(client: &mut Client, from: usize, to: usize) {
    for n in from..to {
        send(client, BOB, &format!("m{n:04}"), OMEMO).await;
    }
    client.everything_until_pong(DOMAIN).await;
}

/// Stops a program, and returns when it has stopped: on a busy machine that takes a moment.
fn stop(multiend: &mut Multiend) {
    multiend.process().signal("STOP");
    let stat = format!("/proc/{}/stat", multiend.process().pid());
    poll("the stop", DEADLINE, || std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T ")).then_some(()));
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n:04}")).collect()
}

#[tokio::test]
async fn without_a_component_requests_fail_at_once_and_everything_else_goes_on() {
    let server = Deployment::new(&["alice", "bob"]).start();
    let (mut alice, mut bob) = (client(&server, "alice").await, client(&server, "bob").await);
    let started = Instant::now();
    for (kind, payload) in [
        ("get", items(DEVICES, &[])),
        ("set", publish(DEVICES, "current", &devices(&[1]))),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>".to_owned()),
    ] {
        let answer = alice.request(kind, None, &payload).await;
        let error = answer.children().find(|e| e.name() == "error").unwrap();
        assert_eq!((error.attr("type"), error_condition(&answer)), (Some("wait"), Some("service-unavailable")));
    }
    assert!(started.elapsed() < Duration::from_secs(25), "at once, not after the plugin's 30 s");
    let nick = "<nick xmlns='http://jabber.org/protocol/nick'>Ally</nick>";
    let answer = alice.request("set", None, &publish("http://jabber.org/protocol/nick", "1", nick)).await;
    assert_eq!(answer.attr("type"), Some("result"));
    let answer = alice.request("get", None, &items("http://jabber.org/protocol/nick", &[])).await;
    assert_eq!(items_of(&answer).len(), 1);
    // Messages go on, and are archived when the component comes.
    send_taken(&mut alice, 0, 50).await;
    bob.wait_for("a message", |e| e.attr("id") == Some("m0049")).await;
    let multiend = Multiend::builder(server.component_port()).start();
    for client in [&mut alice, &mut bob] {
        assert_eq!(archived_until(client, "m0049").await, ids(50));
    }
    // They came in one batch, the copies of each message behind one another: one body for both.
    let (_, stats, _) = multiend.command(&["admin", "stats", "--json"]);
    assert!(stats.contains("\"copies\":100,") && stats.contains("\"bodies\":50"), "{stats}");
}

#[tokio::test]
async fn a_component_that_hangs_costs_a_request_its_time_and_a_query_is_marked_unstable() {
    let mut setup = Setup::with(&Deployment::new(&["alice", "bob"]).option("timeout", 2), "");
    let mut alice = setup.client("alice", "phone").await;
    send_taken(&mut alice, 0, 5).await;
    assert_eq!(archived_until(&mut alice, "m0004").await.len(), 5);
    stop(&mut setup.multiend);
    let answer = alice.request("get", None, &items(DEVICES, &[])).await;
    let error = answer.children().find(|e| e.name() == "error").unwrap();
    assert_eq!((error.attr("type"), error_condition(&answer)), (Some("wait"), Some("remote-server-timeout")));
    send_taken(&mut alice, 5, 10).await;
    setup.multiend.process().signal("CONT");
    assert_eq!(archived_until(&mut alice, "m0009").await, ids(10));
    assert_eq!(query(&mut alice, "").await.unwrap().fin.attr("stable"), None, "settled again");
}

#[tokio::test]
async fn a_full_journal_delivers_and_counts_or_refuses() {
    for policy in ["deliver", "refuse"] {
        let deployment =
            Deployment::new(&["alice", "bob"]).option("journal_size", 20_000).option("journal_full", policy);
        let server = deployment.start();
        let (mut alice, mut bob) = (client(&server, "alice").await, client(&server, "bob").await);
        for n in 0..60 {
            send(&mut alice, BOB, &format!("m{n:04}"), &format!("<body>{}</body>", "x".repeat(500))).await;
        }
        let mut told = alice.everything_until_pong(DOMAIN).await;
        let arrived = bob.everything_until_pong(DOMAIN).await;
        // What was refused at bob's is back by now.
        told.extend(alice.everything_until_pong(DOMAIN).await);
        let errors: Vec<_> = told.iter().filter(|e| e.name() == "message" && e.attr("type") == Some("error")).collect();
        let arrived: Vec<_> = arrived.iter().filter(|e| e.name() == "message").collect();
        let stamped = arrived.iter().filter(|e| e.has_child("stanza-id", "urn:xmpp:sid:0")).count();
        assert!(stamped > 0 && stamped < 60, "{policy}: {stamped}");
        if policy == "deliver" {
            assert_eq!((arrived.len(), errors.len()), (60, 0));
        } else {
            let mut told: Vec<_> = arrived.iter().chain(&errors).filter_map(|e| e.attr("id")).collect();
            told.sort_unstable();
            assert_eq!(told, ids(60), "each arrives or comes back");
            assert!(errors.iter().all(|e| error_condition(e) == Some("resource-constraint")));
        }
        poll("the log, for it is never silent", DEADLINE, || {
            std::fs::read_to_string(server.log_path()).unwrap().contains("takes no more (full)").then_some(())
        });
        // What it had room for gets there, and then there is room again.
        let _multiend = Multiend::builder(server.component_port()).start();
        poll_async("room in the journal", DEADLINE, async || {
            let n = alice.fresh_id();
            send(&mut alice, BOB, &n, "<body>again</body>").await;
            alice.everything_until_pong(DOMAIN).await;
            let live = bob.everything_until_pong(DOMAIN).await;
            let mut live = live.iter().filter(|e| e.attr("id") == Some(&n));
            live.any(|e| e.has_child("stanza-id", "urn:xmpp:sid:0")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn with_no_loss_window_a_message_goes_on_only_after_its_copy_is_safe() {
    let setup = Setup::with(&Deployment::new(&["alice", "bob"]).option("journal_sync", 0), "");
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    send_taken(&mut alice, 0, 20).await;
    send(&mut bob, ALICE, "back", "<body>b</body>").await;
    alice.wait_for("the answer", |e| e.attr("id") == Some("back")).await;
    for client in [&mut alice, &mut bob] {
        let mut expected = ids(20);
        expected.push("back".to_owned());
        assert_eq!(archived_until(client, "back").await, expected);
    }
    let log = std::fs::read_to_string(setup.server.log_path()).unwrap();
    assert!(!log.contains("Cannot force") && !log.contains("does not work here"), "{log}");
}

#[tokio::test]
async fn what_stream_management_acknowledges_is_archived_although_the_server_is_killed_at_once() {
    const EACH: usize = 20;
    let mut server = Deployment::new(&["alice", "bob"]).start();
    for round in 0..3 {
        let (mut alice, _bob) = (client(&server, "alice").await, client(&server, "bob").await);
        alice.send_raw("<enable xmlns='urn:xmpp:sm:3'/>").await;
        alice.wait_for("stream management", |e| e.name() == "enabled").await;
        for n in round * EACH..(round + 1) * EACH {
            send(&mut alice, BOB, &format!("m{n:04}"), "<body>b</body>").await;
        }
        alice.send_raw("<r xmlns='urn:xmpp:sm:3'/>").await;
        let all = EACH.to_string();
        alice.wait_for("the acknowledgement", |e| e.name() == "a" && e.attr("h") == Some(&all)).await;
        server.kill9();
        server.restart();
    }
    let _multiend = Multiend::builder(server.component_port()).start();
    let mut alice = client(&server, "alice").await;
    let last = format!("m{:04}", 3 * EACH - 1);
    assert_eq!(archived_until(&mut alice, &last).await, ids(3 * EACH));
}

#[tokio::test]
async fn nothing_is_lost_or_reordered_when_all_are_killed_in_any_mix() {
    let mut server = Deployment::new(&["alice", "bob"]).option("batch", 7).start();
    let mut multiend = Multiend::builder(server.component_port()).start();
    let mut sent = 0;
    for round in 0..12 {
        let mut alice = client(&server, "alice").await;
        let more = 15 + round;
        send_taken(&mut alice, sent, sent + more).await;
        sent += more;
        match round % 4 {
            0 => server.kill9(),
            1 => {
                multiend.kill9();
                send_taken(&mut alice, sent, sent + 5).await;
                sent += 5;
                server.kill9();
            }
            2 => {
                stop(&mut multiend);
                send_taken(&mut alice, sent, sent + 5).await;
                sent += 5;
                multiend.kill9();
            }
            _ => server.stop(),
        }
        drop(alice);
        tear_last_line(&server, round);
        server.restart();
        if round % 4 == 1 || round % 4 == 2 {
            multiend.spawn();
        }
    }
    let mut bob = client(&server, "bob").await;
    let mut alice = client(&server, "alice").await;
    send(&mut alice, BOB, "end", OMEMO).await;
    let mut expected = ids(sent);
    expected.push("end".to_owned());
    for client in [&mut alice, &mut bob] {
        assert_eq!(archived_until(client, "end").await, expected);
    }
}

/// Adds what a crash in the middle of a write leaves.
fn tear_last_line(server: &Server, round: usize) {
    use std::io::Write as _;
    let mut segments: Vec<_> =
        std::fs::read_dir(server.journal()).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
    segments.sort();
    if round.is_multiple_of(2)
        && let Some(last) = segments.last()
    {
        let mut file = std::fs::OpenOptions::new().append(true).open(last).unwrap();
        file.write_all(b"0123abcd <copy owner='alice@example.org' direc").unwrap();
    }
}
