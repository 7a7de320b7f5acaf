//! Rooms (XEP-0045): they keep archives of their own, with the server's own module, beside the plugin.

use super::messages::stanza_ids;
use crate::support::archive::{query, query_of};
use crate::support::xmpp::Client;
use crate::{BOB, Deployment, Setup, archived_until, send};

const ROOM: &str = "r@rooms.example.org";

/// Alice and bob in a room, as `al` and `bo`.
async fn in_a_room(setup: &Setup) -> (Client, Client) {
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    for (client, nick) in [(&mut alice, "al"), (&mut bob, "bo")] {
        let x = "<x xmlns='http://jabber.org/protocol/muc'/>";
        client.send_raw(&format!("<presence to='{ROOM}/{nick}'>{x}</presence>")).await;
        client.wait_for("the room", |e| e.name() == "message" && e.attr("type") == Some("groupchat")).await;
    }
    (alice, bob)
}

async fn say(client: &mut Client, id: &str) {
    let body = format!("<body>{id}</body>");
    client.send_raw(&format!("<message type='groupchat' id='{id}' to='{ROOM}'>{body}</message>")).await;
}

#[tokio::test]
async fn private_messages_of_a_room_are_archived_and_its_public_ones_are_not() {
    let setup = Setup::with(&Deployment::new(&["alice", "bob"]).rooms(), "");
    let (mut alice, mut bob) = in_a_room(&setup).await;
    say(&mut alice, "public").await;
    bob.wait_for("the public message", |e| e.attr("id") == Some("public")).await;
    let muc = "<body>psst</body><x xmlns='http://jabber.org/protocol/muc#user'/>";
    send(&mut alice, &format!("{ROOM}/bo"), "private", muc).await;
    let live = bob.wait_for("the private message", |e| e.attr("id") == Some("private")).await;
    assert!(stanza_ids(&live).iter().any(|(by, _)| by == BOB));
    for client in [&mut alice, &mut bob] {
        assert_eq!(archived_until(client, "private").await, ["private"]);
    }
}

#[tokio::test]
async fn a_room_s_archive_is_the_server_s_and_an_account_s_is_ours() {
    let mut setup = Setup::with(&Deployment::new(&["alice", "bob"]).rooms(), "");
    let (mut alice, mut bob) = in_a_room(&setup).await;
    for (id, speaks) in [("r1", true), ("r2", false), ("r3", true)] {
        say(if speaks { &mut alice } else { &mut bob }, id).await;
        for client in [&mut alice, &mut bob] {
            let live = client.wait_for(id, |e| e.name() == "message" && e.attr("id") == Some(id)).await;
            let ids = stanza_ids(&live);
            assert_eq!(ids.len(), 1, "{ids:?}");
            assert_eq!(ids[0].0, ROOM);
        }
    }
    send(&mut alice, BOB, "m1", "<body>between us</body>").await;
    let live = bob.wait_for("the message", |e| e.attr("id") == Some("m1")).await;
    let own = stanza_ids(&live);
    assert_eq!((own.len(), own[0].0.as_str()), (1, BOB), "one archive only: {own:?}");
    assert_eq!(archived_until(&mut bob, "m1").await, ["m1"]);
    let page = query(&mut bob, "").await.unwrap();
    assert_eq!(page.results[0].0, own[0].1, "and it is ours that answers");

    let page = query_of(&mut bob, ROOM, "").await.unwrap();
    let said: Vec<&str> = page.ids().into_iter().filter(|id| id.starts_with('r')).collect();
    assert_eq!(said, ["r1", "r2", "r3"]);
    assert!(!page.ids().contains(&"m1"));
    let after = format!("<set xmlns='http://jabber.org/protocol/rsm'><max>1</max><after>{}</after></set>", page.last());
    assert!(query_of(&mut bob, ROOM, &after).await.unwrap().results.is_empty());
    // Also while multiend is away.
    setup.multiend.terminate();
    assert_eq!(query_of(&mut bob, ROOM, "").await.unwrap().ids(), page.ids());
}
