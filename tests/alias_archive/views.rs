//! What a device is given of its archive, and how far it has read.

use minidom::Element;

use crate::asking::{ALICE, BOB, MAM, Setup, announce, form, query, refused, rsm, send, setup};
use crate::support::DOMAIN;
use crate::support::xmpp::{Client, error_condition};

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
