//! Two domains on one server: each has a journal of its own, and neither waits for the other.

use crate::support::archive::everything;
use crate::support::multiend::Multiend;
use crate::support::plugin::Server as _;
use crate::support::process::poll_async;
use crate::support::xmpp::{Client, DEADLINE};
use crate::support::{COMPONENT, DOMAIN};
use crate::{ALICE, Deployment, OMEMO, send};

const OTHER: &str = "elsewhere.example";
const CAROL: &str = "carol@elsewhere.example";

#[tokio::test]
async fn a_domain_whose_copies_are_not_taken_does_not_hold_up_another() {
    let server = Deployment::new(&["alice"]).stranger("carol", OTHER).components(&[COMPONENT]).start();
    // It serves the one and, as yet, not the other.
    let mut multiend = Multiend::builder(server.component_port()).start();
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut carol = Client::connect(server.c2s_port(), OTHER, "carol", "phone").await;
    alice.online().await;
    carol.online().await;
    let mut expected = Vec::new();
    for n in 0..20 {
        for (from, to, who) in [(&mut alice, CAROL, "a"), (&mut carol, ALICE, "c")] {
            let id = format!("{who}{n:02}");
            send(from, to, &id, OMEMO).await;
            expected.push(id);
        }
        // In the order in which both archives are to have them.
        alice.wait_for("carol's", |e| e.attr("id") == Some(&format!("c{n:02}"))).await;
        carol.wait_for("alice's", |e| e.attr("id") == Some(&format!("a{n:02}"))).await;
    }
    let mut of_alice = archived_until_all(&mut alice, expected.len()).await;
    let waiting = server.journal().with_file_name(OTHER);
    let bytes: u64 = std::fs::read_dir(&waiting).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes > 40 * 300, "what is not taken waits in a journal of its own: {bytes}");

    let config = std::fs::read_to_string(multiend.config_path()).unwrap();
    let both = format!("domains = [\"{DOMAIN}\", \"{OTHER}\"]");
    std::fs::write(multiend.config_path(), config.replace(&format!("domains = [\"{DOMAIN}\"]"), &both)).unwrap();
    multiend.restart();
    let mut of_carol = archived_until_all(&mut carol, expected.len()).await;
    for archive in [&mut of_alice, &mut of_carol] {
        for who in ["a", "c"] {
            let sent: Vec<_> = archive.iter().filter(|id| id.starts_with(who)).cloned().collect();
            let wanted: Vec<_> = expected.iter().filter(|id| id.starts_with(who)).cloned().collect();
            assert_eq!(sent, wanted, "in the order of who wrote them");
        }
        archive.sort();
        expected.sort();
        assert_eq!(*archive, expected, "each once");
    }
}

/// The stanza ids of everything in a client's archive, as soon as there are so many.
async fn archived_until_all(client: &mut Client, count: usize) -> Vec<String> {
    poll_async("the archive", DEADLINE * 3, async || {
        let all = everything(client).await.ok()?;
        let ids: Vec<_> = all.iter().map(|(_, m)| m.attr("id").unwrap_or_default().to_owned()).collect();
        (ids.len() >= count).then_some(ids)
    })
    .await
}
