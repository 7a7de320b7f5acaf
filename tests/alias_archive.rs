//! The archive through the alias door of a real Prosody, asked by a client that shares no code with the product
//! (DESIGN: "Archive: what must always hold").
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use minidom::Element;
use support::multiend::Multiend;
use support::omemo::{TestDevice, publish};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN};

const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BOB: &str = r"bob\40example.org@multiend.example.org";
const MAM: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";

struct Setup {
    prosody: Prosody,
    multiend: Multiend,
    alice: Client,
    bob: Client,
}

/// Alice and bob, who have both used the service.
async fn setup(extra: &str) -> Setup {
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
async fn send(client: &mut Client, to: &str, id: &str, content: &str) -> String {
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

struct Page {
    /// Archive id and forwarded message.
    results: Vec<(String, Element)>,
    fin: Element,
}

impl Page {
    fn ids(&self) -> Vec<&str> {
        self.results.iter().map(|(_, message)| message.attr("id").unwrap_or_default()).collect()
    }

    fn end(&self, name: &str) -> String {
        self.fin.get_child("set", RSM).unwrap().get_child(name, RSM).map(Element::text).unwrap_or_default()
    }

    fn complete(&self) -> bool {
        self.fin.attr("complete") == Some("true")
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let fields: String =
        fields.iter().map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>")).collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>{MAM}</value></field>{fields}</x>"
    )
}

fn rsm(content: &str) -> String {
    format!("<set xmlns='{RSM}'>{content}</set>")
}

async fn query(client: &mut Client, archive: &str, content: &str) -> Page {
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

async fn refused(client: &mut Client, archive: &str, content: &str) -> String {
    let answer = client.request("set", Some(archive), &format!("<query xmlns='{MAM}'>{content}</query>")).await;
    error_condition(&answer).unwrap_or_else(|| panic!("{}", String::from(&answer))).to_owned()
}

#[tokio::test]
async fn a_message_is_archived_for_both_and_relayed_with_the_id_of_the_receivers_archive() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    let forged = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{BOB}' id='forged'/>");
    let sent =
        send(&mut alice, BOB, "m1", &format!("<body>hello &amp; &lt;you&gt;</body><thread>t</thread>{forged}")).await;

    let relayed = bob.wait_for("the relayed message", |stanza| stanza.attr("id") == Some("m1")).await;
    assert_eq!(relayed.attr("from"), Some(format!("{ALICE}/phone").as_str()));
    let stanza_ids: Vec<_> = relayed.children().filter(|child| child.name() == "stanza-id").collect();
    assert_eq!(stanza_ids.len(), 1, "the forged one is gone");
    assert_eq!(stanza_ids[0].attr("by"), Some(BOB));

    let alices = query(&mut alice, ALICE, "").await;
    assert_eq!(alices.results[0].0, sent);
    assert_eq!(alices.results[0].1.attr("from"), Some("alice@example.org/phone"));
    assert_eq!(alices.results[0].1.attr("to"), Some(BOB));
    let bobs = query(&mut bob, COMPONENT, "").await;
    assert_eq!(bobs.results[0].0, stanza_ids[0].attr("id").unwrap());
    assert_ne!(bobs.results[0].0, sent, "an id belongs to one archive");
    assert_eq!(bobs.results[0].1.attr("from"), Some(format!("{ALICE}/phone").as_str()));
    let body = bobs.results[0].1.children().find(|child| child.name() == "body").unwrap().text();
    assert_eq!(body, "hello & <you>");
    assert!(bobs.complete());
}

#[tokio::test]
async fn archive_3_pages_run_both_ways_and_filters_narrow_them() {
    let Setup { mut alice, mut bob, prosody, multiend: _multiend } = setup("").await;
    let mut carol = Client::connect(prosody.c2s_port(), DOMAIN, "carol", "phone").await;
    for n in 0..12 {
        send(&mut alice, BOB, &format!("m{n:02}"), "<body>b</body>").await;
    }
    // Carol writes without having published anything: her server vouches for her.
    send(&mut carol, ALICE, "from-carol", "<body>c</body>").await;
    let all = query(&mut alice, ALICE, "").await;
    assert_eq!(all.results.len(), 13);

    let mut forward = Vec::new();
    let mut after = String::new();
    loop {
        let page = query(&mut alice, ALICE, &rsm(&format!("<max>5</max>{after}"))).await;
        forward.extend(page.ids().iter().map(|id| (*id).to_owned()));
        after = format!("<after>{}</after>", page.end("last"));
        if page.complete() {
            break;
        }
        assert_eq!(page.results.len(), 5);
    }
    assert_eq!(forward, all.ids());

    let newest = query(&mut alice, ALICE, &rsm("<max>5</max><before/>")).await;
    assert_eq!(newest.ids(), all.ids()[8..]);
    let before =
        query(&mut alice, ALICE, &rsm(&format!("<max>20</max><before>{}</before>", newest.end("first")))).await;
    assert_eq!(before.ids(), all.ids()[..8]);
    assert!(before.complete() && !newest.complete());

    let with_bob = query(&mut alice, ALICE, &form(&[("with", BOB)])).await;
    assert_eq!(with_bob.results.len(), 12);
    let with_bob_himself = query(&mut alice, ALICE, &form(&[("with", "bob@example.org")])).await;
    assert_eq!(with_bob_himself.ids(), with_bob.ids());
    let nobody = query(&mut bob, BOB, &form(&[("with", "carol@example.org")])).await;
    assert!(nobody.results.is_empty() && nobody.complete());
    let nothing = query(&mut alice, ALICE, &form(&[("end", "2020-01-01T00:00:00Z")])).await;
    assert!(nothing.results.is_empty());
    let everything = query(&mut alice, ALICE, &form(&[("start", "2020-01-01T00:00:00Z")])).await;
    assert_eq!(everything.ids(), all.ids());
    let between = form(&[("after-id", &all.results[2].0), ("before-id", &all.results[6].0)]);
    assert_eq!(query(&mut alice, ALICE, &between).await.ids(), all.ids()[3..6]);
    let flipped = query(&mut alice, ALICE, &format!("{}<flip-page/>", rsm("<max>3</max>"))).await;
    assert_eq!(flipped.ids(), ["m02", "m01", "m00"]);
}

#[tokio::test]
async fn archive_1_a_message_sent_again_is_stored_once() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    let first = send(&mut alice, BOB, "again", "<body>once</body><origin-id xmlns='urn:xmpp:sid:0' id='again'/>").await;
    let second =
        send(&mut alice, BOB, "again", "<body>once</body><origin-id xmlns='urn:xmpp:sid:0' id='again'/>").await;
    assert_eq!(first, second);
    let other = send(&mut alice, BOB, "again", "<body>another text under the same id</body>").await;
    assert_ne!(first, other, "only the same message is a duplicate");
    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        assert_eq!(query(client, archive, "").await.results.len(), 2);
    }
}

#[tokio::test]
async fn archive_3_preferences_decide_on_the_owner_s_own_copy() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    let empty = bob.request("get", Some(BOB), &format!("<prefs xmlns='{MAM}'/>")).await;
    let prefs = empty.get_child("prefs", MAM).unwrap();
    assert_eq!((prefs.attr("default"), prefs.children().count()), (Some("always"), 2));
    let never = format!("<prefs xmlns='{MAM}' default='always'><never><jid>alice@example.org</jid></never></prefs>");
    let set = bob.request("set", Some(BOB), &never).await;
    let listed: Vec<String> =
        set.get_child("prefs", MAM).unwrap().get_child("never", MAM).unwrap().children().map(Element::text).collect();
    assert_eq!(listed, [ALICE], "in the address that the client writes to");

    let sent = send(&mut alice, BOB, "m1", "<body>not for bob's archive</body>").await;
    let relayed = bob.wait_for("the message", |stanza| stanza.attr("id") == Some("m1")).await;
    assert!(relayed.get_child("stanza-id", "urn:xmpp:sid:0").is_none(), "no archive id where nothing is archived");
    assert_eq!(query(&mut alice, ALICE, "").await.results[0].0, sent);
    assert!(query(&mut bob, BOB, "").await.results.is_empty());

    // An acknowledgement without the id of a copy that the sender did not want.
    bob.send_raw(&format!("<message to='{ALICE}' id='m2'><body>b</body><request xmlns='urn:multiend:0'/></message>"))
        .await;
    let told =
        bob.wait_for("the acknowledgement", |stanza| stanza.get_child("archived", "urn:multiend:0").is_some()).await;
    assert_eq!(told.get_child("archived", "urn:multiend:0").unwrap().children().count(), 0);
    assert_eq!(query(&mut alice, ALICE, "").await.ids(), ["m1", "m2"]);

    let roster = bob.request("set", Some(BOB), &format!("<prefs xmlns='{MAM}' default='roster'/>")).await;
    assert_eq!(error_condition(&roster), Some("feature-not-implemented"));
    for kind in ["get", "set"] {
        let foreign = alice.request(kind, Some(BOB), &never).await;
        assert_eq!(error_condition(&foreign), Some("forbidden"));
    }
}

#[tokio::test]
async fn archive_3_a_retracted_message_leaves_a_tombstone_for_both() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    const RETRACT: &str = "urn:xmpp:message-retract:1";
    let wrong = send(&mut alice, BOB, "wrong-1", "<body>Have not saints lips?</body>").await;
    send(&mut bob, ALICE, "wrong-1", "<body>the same id by another author</body>").await;
    // Only the author takes a message back: bob's retraction names his own, not alice's.
    send(&mut alice, BOB, "kept-1", "<body>kept</body>").await;
    send(&mut bob, ALICE, "r0", &format!("<retract id='kept-1' xmlns='{RETRACT}'/><body>/me retracts</body>")).await;
    send(&mut alice, BOB, "r1", &format!("<retract id='wrong-1' xmlns='{RETRACT}'/><body>/me retracts</body>")).await;
    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        let page = query(client, archive, "").await;
        assert_eq!(page.ids(), ["wrong-1", "wrong-1", "kept-1", "r0", "r1"], "the retraction itself is kept");
        let tombstone = &page.results[0].1;
        let children: Vec<_> = tombstone.children().collect();
        assert_eq!(children.len(), 1, "{}", String::from(tombstone));
        assert!(children[0].is("retracted", RETRACT));
        assert_eq!(children[0].attr("id"), Some("r1"));
        assert!(children[0].attr("stamp").is_some());
        for untouched in [&page.results[1].1, &page.results[2].1] {
            assert!(untouched.children().any(|child| child.name() == "body"));
        }
    }
    let by_id = query(&mut alice, ALICE, &form(&[("ids", &wrong)])).await;
    assert_eq!(by_id.results.len(), 1, "its id stays a place in the archive");
    let disco = alice.request("get", Some(ALICE), "<query xmlns='http://jabber.org/protocol/disco#info'/>").await;
    let disco = String::from(&disco);
    assert!(disco.contains("urn:xmpp:message-retract:1#tombstone"), "{disco}");
}

#[tokio::test]
async fn archive_4_a_view_is_trimmed_to_the_device_that_published_from_this_session() {
    let Setup { mut alice, mut bob, multiend, prosody } = setup("").await;
    let key = "A".repeat(132);
    let group = |jid: &str, rids: &[u32]| {
        let keys: String = rids.iter().map(|rid| format!("<key rid='{rid}'>{key}</key>")).collect();
        format!("<keys jid='{jid}'>{keys}</keys>")
    };
    let groups = group("bob@example.org", &[2, 3, 4]) + &group("alice@example.org", &[5, 6]);
    let encrypted = format!(
        "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'>{groups}</header><payload>UGF5bG9hZA==</payload></encrypted>"
    );
    send(&mut alice, BOB, "e1", &encrypted).await;

    let rids = |message: &Element| -> Vec<String> {
        let text = String::from(message);
        text.split("rid=").skip(1).map(|rest| rest.split(['\'', '"']).nth(1).unwrap().to_owned()).collect()
    };
    let page = query(&mut bob, BOB, "").await;
    assert_eq!(rids(&page.results[0].1), ["2"], "bob's phone published bundle 2");
    let mut unknown = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "unknown").await;
    let page = query(&mut unknown, BOB, "").await;
    assert_eq!(rids(&page.results[0].1).len(), 5, "a session that is not known gets everything");
    assert!(multiend.metric("multiend_archive_trimmed_bytes_total") >= 4.0 * 132.0);
}

/// An OMEMO message by device 1 with headers for these devices of bob.
fn encrypted_for(rids: &[u32]) -> String {
    let keys: String = rids.iter().map(|rid| format!("<key rid='{rid}'>{}</key>", "A".repeat(132))).collect();
    format!(
        "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='bob@example.org'>{keys}</keys></header>\
         <payload>UGF5bG9hZA==</payload></encrypted>"
    )
}

async fn announce(client: &mut Client, alias: &str, device: u32) {
    let list = format!("<devices xmlns='urn:xmpp:omemo:2'><device id='{device}'/></devices>");
    let answer = client.request("set", Some(alias), &publish("urn:xmpp:omemo:2:devices", "current", &list)).await;
    assert_eq!(answer.attr("type"), Some("result"));
}

#[tokio::test]
async fn archive_4_what_a_device_cannot_read_may_be_left_out_without_losing_its_place() {
    const DEVICE: &str = "{urn:multiend:0}device";
    const VIEW: &str = "{urn:multiend:0}view";
    let Setup { mut alice, mut bob, multiend, prosody } = setup("[archive]\nunreadable = \"omit\"\n").await;
    let readable = [3, 4, 9];
    for n in 0..12 {
        let rids: &[u32] = if readable.contains(&n) { &[2, 7] } else { &[7, 8] };
        send(&mut alice, BOB, &format!("m{n:02}"), &encrypted_for(rids)).await;
    }
    let all = query(&mut bob, BOB, "").await;
    assert_eq!(all.results.len(), 12, "bob's phone is not in his list yet");
    announce(&mut bob, BOB, 2).await;
    assert_eq!(query(&mut bob, BOB, "").await.ids(), ["m03", "m04", "m09"]);

    // Both ways, in pages of every size: each page has something unless nothing follows, and nothing is skipped.
    for max in 1..=4 {
        for backwards in [false, true] {
            let (mut seen, mut place) = (Vec::new(), if backwards { "<before/>".to_owned() } else { String::new() });
            for round in 0.. {
                assert!(round < 5, "this goes on for ever");
                let page = query(&mut bob, BOB, &rsm(&format!("<max>{max}</max>{place}"))).await;
                let ids: Vec<String> = page.ids().iter().map(|id| (*id).to_owned()).collect();
                seen = if backwards { [ids, seen].concat() } else { [seen, ids].concat() };
                if page.complete() {
                    break;
                }
                assert!(!page.results.is_empty());
                place = match backwards {
                    true => format!("<before>{}</before>", page.end("first")),
                    false => format!("<after>{}</after>", page.end("last")),
                };
            }
            assert_eq!(seen, ["m03", "m04", "m09"], "max {max}, backwards {backwards}");
        }
    }
    let count = query(&mut bob, BOB, &rsm("<max>0</max>")).await;
    assert_eq!(count.end("count"), "12", "the count is that of the archive");

    let keep = query(&mut bob, BOB, &form(&[(VIEW, "keep")])).await;
    assert_eq!(keep.results.len(), 12);
    assert!(
        String::from(&keep.results[0].1).contains("rid=\"8\"") || String::from(&keep.results[0].1).contains("rid='8'")
    );
    let trim = query(&mut bob, BOB, &form(&[(VIEW, "trim")])).await;
    assert!(trim.results.len() == 12 && !String::from(&trim.results[0].1).contains("rid="));
    // A session that only says which device it is has its view trimmed, and nothing left out.
    let mut unknown = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "unknown").await;
    let claimed = query(&mut unknown, BOB, &form(&[(DEVICE, "omemo2:2"), (VIEW, "omit")])).await;
    assert_eq!(claimed.results.len(), 12);
    assert_eq!(String::from(&claimed.results[3].1).matches("rid=").count(), 1);
    assert_eq!(refused(&mut bob, BOB, &form(&[(DEVICE, "2")])).await, "bad-request");
    assert_eq!(refused(&mut bob, BOB, &form(&[(VIEW, "nothing")])).await, "bad-request");
    let fields = bob.request("get", Some(BOB), &format!("<query xmlns='{MAM}'/>")).await;
    for name in [DEVICE, VIEW] {
        assert!(String::from(&fields).contains(name), "{name} is not in the form");
    }
    // What bob's phone sent itself stays: by it, it learns that its message was archived.
    let own = encrypted_for(&[7]).replace("sid='1'", "sid='2'");
    send(&mut bob, ALICE, "own", &own).await;
    assert_eq!(query(&mut bob, BOB, "").await.ids(), ["m03", "m04", "m09", "own"]);
    assert!(multiend.metric("multiend_archive_omitted_total") >= 9.0);
}

#[tokio::test]
async fn a_device_says_how_far_it_has_read() {
    let Setup { mut alice, mut bob, multiend, prosody } = setup("").await;
    announce(&mut bob, BOB, 2).await;
    for n in 0..4 {
        send(&mut alice, BOB, &format!("m{n}"), "<body>b</body>").await;
    }
    let page = query(&mut bob, BOB, "").await;
    let behind = || {
        let (status, out, err) = multiend.command(&["admin", "cursors", "--json", "bob@example.org"]);
        assert!(status.success(), "{err}");
        let (_, device) = out.split_once("\"device\":2,\"listed\":true,").unwrap_or_else(|| panic!("{out}"));
        let (read, behind) = device.split_once("\"behind\":").unwrap();
        (!read.contains("null")).then(|| behind.split('}').next().unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(behind(), None, "a page that was sent is not a page that was read");
    // Whoever asks for all that follows has what came before; whoever looks at one conversation may not.
    query(&mut bob, BOB, &(form(&[("with", ALICE)]) + &rsm(&format!("<after>{}</after>", page.results[3].0)))).await;
    assert_eq!(behind(), None);
    query(&mut bob, BOB, &rsm(&format!("<after>{}</after>", page.results[1].0))).await;
    assert_eq!(behind(), Some(2));
    let read = |id: &str| format!("<read xmlns='urn:multiend:0' id='{id}'/>");
    for (place, left) in [(2, 1), (0, 1), (3, 0)] {
        let answer = bob.request("set", Some(BOB), &read(&page.results[place].0)).await;
        assert_eq!(answer.attr("type"), Some("result"));
        assert_eq!(behind(), Some(left), "a cursor never moves back");
    }
    let unknown = bob.request("set", Some(BOB), &read("no-such-id")).await;
    assert_eq!(error_condition(&unknown), Some("item-not-found"));
    let foreign = alice.request("set", Some(BOB), &read(&page.results[0].0)).await;
    assert_eq!(error_condition(&foreign), Some("forbidden"));
    let mut stranger = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "unknown").await;
    let uncertain = stranger.request("set", Some(BOB), &read(&page.results[0].0)).await;
    assert_eq!(error_condition(&uncertain), Some("not-acceptable"));
    assert!(multiend.metric("multiend_archive_cursor_lag_messages_count") >= 4.0);
}

#[tokio::test]
async fn archive_5_what_has_expired_is_hidden_at_once_and_purged_later() {
    let extra = "[archive]\npurge_interval = \"1s\"\n";
    let Setup { mut alice, mut bob, multiend, prosody: _prosody } = setup(extra).await;
    send(&mut alice, BOB, "stays", "<body>s</body>").await;
    send(&mut alice, BOB, "goes", "<body>g</body><ephemeral xmlns='urn:xmpp:ephemeral:0' timer='1'/>").await;
    send(&mut alice, BOB, "follows", "<body>f</body>").await;
    assert_eq!(query(&mut bob, BOB, "").await.ids(), ["stays", "goes", "follows"]);
    let page = support::process::poll_async("the expiry", support::xmpp::DEADLINE, async || {
        let page = query(&mut bob, BOB, "").await;
        (page.ids() == ["stays", "", "follows"]).then_some(page)
    })
    .await;
    let placeholder = &page.results[1];
    assert!(placeholder.1.children().all(|child| child.name() == "expired"), "the message itself is gone");
    support::process::poll("the purge", support::xmpp::DEADLINE, || {
        (multiend.metric("multiend_archive_purged_total{what=\"bodies\"}") >= 1.0).then_some(())
    });
    let after = rsm(&format!("<after>{}</after>", placeholder.0));
    assert_eq!(
        query(&mut bob, BOB, &after).await.ids(),
        ["follows"],
        "the id of a placeholder is a place to go on from"
    );
}

#[tokio::test]
async fn archive_6_an_archive_answers_its_owner_only() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    send(&mut alice, BOB, "m", "<body>b</body>").await;
    assert_eq!(refused(&mut alice, BOB, "").await, "forbidden");
    let metadata = alice.request("get", Some(BOB), &format!("<metadata xmlns='{MAM}'/>")).await;
    assert_eq!(error_condition(&metadata), Some("forbidden"));
    let own = bob.request("get", Some(BOB), &format!("<metadata xmlns='{MAM}'/>")).await;
    assert_eq!(own.get_child("metadata", MAM).unwrap().children().count(), 2);
}

#[tokio::test]
async fn bad_queries_and_messages_get_the_error_that_their_xep_names() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    send(&mut alice, BOB, "m", "<body>b</body>").await;
    let over_long = "x".repeat(5_000);
    for (what, content, expected) in [
        ("unknown field", form(&[("urn:nobody:knows", "1")]), "feature-not-implemented"),
        ("malformed time", form(&[("start", "yesterday")]), "bad-request"),
        ("malformed jid", form(&[("with", "@@")]), "bad-request"),
        ("unknown id", rsm("<after>no-such-id</after>"), "item-not-found"),
        ("unknown before-id", form(&[("before-id", "no-such-id")]), "item-not-found"),
        ("over-long id", rsm(&format!("<after>{over_long}</after>")), "item-not-found"),
        ("malformed max", rsm("<max>many</max>"), "bad-request"),
    ] {
        assert_eq!(refused(&mut alice, ALICE, &content).await, expected, "{what}");
    }
    for (what, to, stanza, expected) in [
        ("no such account", r"nobody\40example.org@multiend.example.org", "type='chat'", "service-unavailable"),
        ("foreign domain", r"eve\40evil.example@multiend.example.org", "type='chat'", "service-unavailable"),
        ("groupchat", BOB, "type='groupchat'", "service-unavailable"),
        ("to the component", COMPONENT, "type='chat'", "service-unavailable"),
    ] {
        let id = alice.fresh_id();
        alice.send_raw(&format!("<message id='{id}' to='{to}' {stanza}><body>b</body></message>")).await;
        let answer = alice.wait_for(what, |stanza| stanza.attr("id") == Some(&id)).await;
        assert_eq!(error_condition(&answer), Some(expected), "{what}");
    }
    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        assert_eq!(query(client, archive, "").await.ids(), ["m"], "nothing was stored");
    }
}

#[tokio::test]
async fn what_is_not_to_be_archived_is_still_relayed_in_order() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    for (id, content) in [
        ("typing", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
        ("secret", "<body>s</body><no-store xmlns='urn:xmpp:hints'/>"),
    ] {
        alice.send_raw(&format!("<message type='chat' to='{BOB}' id='{id}'>{content}</message>")).await;
    }
    send(&mut alice, BOB, "kept", "<body>k</body>").await;
    let mut order = Vec::new();
    while order.len() < 3 {
        let stanza = bob.next_stanza().await;
        if stanza.name() == "message" {
            order.push(stanza.attr("id").unwrap().to_owned());
        }
    }
    assert_eq!(order, ["typing", "secret", "kept"]);
    assert_eq!(query(&mut bob, BOB, "").await.ids(), ["kept"]);
}

#[tokio::test]
async fn a_server_that_cannot_deliver_tells_the_session_that_wrote() {
    let Setup { mut alice, mut bob, prosody, multiend: _multiend } = setup("").await;
    send(&mut bob, ALICE, "hi", "<body>b</body>").await;
    drop(bob);
    // Without offline storage the server bounces what it cannot deliver.
    alice.send_raw(&format!("<message type='chat' to='{BOB}' id='bounced'><body>b</body></message>")).await;
    let bounce = alice.wait_for("the bounce", |stanza| stanza.attr("id") == Some("bounced")).await;
    assert_eq!((bounce.attr("type"), bounce.attr("from")), (Some("error"), Some(BOB)));
    drop(prosody);
}

#[tokio::test]
async fn a_stranger_from_another_domain_is_refused_and_nothing_is_stored() {
    let prosody = Prosody::builder().users(&["bob"]).stranger("mallory", "elsewhere.example").multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    let mut bob = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "phone").await;
    let bundle = TestDevice { id: 2, seed: 1 }.bundle(1..=3);
    bob.request("set", Some(BOB), &publish("urn:xmpp:omemo:2:bundles", "2", &bundle)).await;

    let mut mallory = Client::connect(prosody.c2s_port(), "elsewhere.example", "mallory", "phone").await;
    mallory.send_raw(&format!("<message type='chat' id='m' to='{BOB}'><body>b</body></message>")).await;
    let answer = mallory.wait_for("the refusal", |stanza| stanza.attr("id") == Some("m")).await;
    assert_eq!(error_condition(&answer), Some("forbidden"));
    assert_eq!(refused(&mut mallory, COMPONENT, "").await, "forbidden", "a stranger has no archive here");
    assert_eq!(refused(&mut mallory, BOB, "").await, "forbidden");
    assert!(query(&mut bob, BOB, "").await.results.is_empty());
    drop(multiend);
}
