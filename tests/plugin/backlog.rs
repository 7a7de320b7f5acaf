//! A component that is away for hours: what waits takes disk and not memory, and keeps its order and its time.

use std::fs;

use crate::support::DOMAIN;
use crate::support::archive::everything;
use crate::support::multiend::Multiend;
use crate::support::plugin::Server as _;
use crate::support::process::poll;
use crate::support::xmpp::{Client, DEADLINE};
use crate::{BOB, Deployment, Server, send};

/// Messages until the server has what memory it needs for such messages at all: its garbage is collected late.
const FIRST: usize = 200;
const MESSAGES: usize = 1_200;
const BODY_BYTES: usize = 30_000;

/// What a process has in memory, in bytes.
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// What waits on disk, in bytes.
fn waiting(server: &Server) -> usize {
    let files = fs::read_dir(server.journal()).unwrap();
    files.map(|file| file.unwrap().metadata().map_or(0, |data| data.len() as usize)).sum()
}

#[tokio::test]
async fn a_long_backlog_waits_on_disk_and_not_in_memory() {
    let server = Deployment::new(&["alice", "bob"]).start();
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    alice.online().await;
    let body = format!("<body>{}</body>", "x".repeat(BODY_BYTES));
    let mut before = 0;
    for n in 0..MESSAGES {
        if n % 50 == 0 {
            alice.everything_until_pong(DOMAIN).await;
        }
        if n == FIRST {
            before = memory(server.pid());
        }
        send(&mut alice, BOB, &format!("m{n:04}"), &body).await;
    }
    alice.everything_until_pong(DOMAIN).await;
    let on_disk = waiting(&server);
    assert!(on_disk > 2 * MESSAGES * BODY_BYTES, "a copy for each archive waits: {on_disk}");
    let while_waiting = memory(server.pid()).saturating_sub(before);
    assert!(while_waiting < on_disk / 4, "{while_waiting} bytes more in memory for {on_disk} on disk");

    let came = std::time::SystemTime::now();
    let multiend = Multiend::builder(server.component_port()).start();
    let stored = format!("\"copies\":{},", 2 * MESSAGES);
    poll("the backlog", DEADLINE * 3, || {
        let (_, stats, _) = multiend.command(&["admin", "stats", "--json"]);
        stats.contains(&stored).then_some(())
    });
    let while_sending = memory(server.pid()).saturating_sub(before);
    assert!(while_sending < on_disk / 4, "{while_sending} bytes more in memory for {on_disk} on disk");
    poll("room on the disk", DEADLINE, || (waiting(&server) < on_disk / 10).then_some(()));

    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    let archived = everything(&mut bob).await.unwrap();
    let ids: Vec<_> = archived.iter().map(|(_, message)| message.attr("id").unwrap().to_owned()).collect();
    assert_eq!(ids, (0..MESSAGES).map(|n| format!("m{n:04}")).collect::<Vec<_>>());
    // The time is that of the message, not that of its arrival here.
    let first = first_stamp(&mut bob).await;
    assert!(first < came, "{first:?}");
}

/// When the first message of an archive was sent, as the archive says.
async fn first_stamp(client: &mut Client) -> std::time::SystemTime {
    let query = "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>1</max></set></query>";
    client.send_raw(&format!("<iq type='set' id='first'>{query}</iq>")).await;
    let result = client.wait_for("the first message", |e| e.has_child("result", "urn:xmpp:mam:2")).await;
    let forwarded = result.get_child("result", "urn:xmpp:mam:2").unwrap().children().next().unwrap();
    let stamp = forwarded.get_child("delay", "urn:xmpp:delay").unwrap().attr("stamp").unwrap();
    let stamp: xmpp_parsers::date::DateTime = stamp.parse().unwrap();
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(stamp.0.timestamp().try_into().unwrap())
}
