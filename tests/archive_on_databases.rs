//! The archive's rules on real databases: from a stanza's bytes through the writer to the pages that its owner reads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;
#[path = "archive_on_databases/world.rs"]
mod world;

use std::time::Duration;

use multiend::admin::purge::{PurgeSettings, purge_all};
use multiend::archive::{Answer, Item, Keep, PageLimits, QueryError, Retention};
use multiend::model::{Clock as _, DeviceId, Owner, Protocol, Requester, SessionJid};
use multiend::stanza::mam::Query;
use multiend::stanza::message::assemble;
use multiend::stanza::tree::Element;
use multiend::store::Appended;
use tokio_util::sync::CancellationToken;
use world::{Database, World};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const HOUR: Duration = Duration::from_secs(3_600);

fn encrypted(from: &str, to: &str, id: &str) -> String {
    format!(
        "<message from='{from}' to='{to}' type='chat' id='{id}'><encrypted xmlns='urn:xmpp:omemo:2'>\
         <header sid='7'><keys jid='{to}'><key rid='1'>QUFB</key><key rid='2'>QkJC</key></keys>\
         <keys jid='{from}'><key rid='3'>Q0ND</key></keys></header><payload>{id}</payload></encrypted></message>"
    )
}

fn set(content: &str) -> String {
    format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>")
}

fn form(fields: &[(&str, &str)]) -> String {
    let fields: String =
        fields.iter().map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>")).collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>"
    )
}

/// The stanza ids of a page, in the order sent; `-` for a placeholder.
fn names(answer: &Answer) -> Vec<String> {
    answer.items.iter().map(name).collect()
}

fn name(item: &Item) -> String {
    let Some(body) = &item.body else { return "-".to_owned() };
    Element::parse(body).unwrap().attribute("id").unwrap().to_owned()
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("m{number:02}")).collect()
}

/// Invariant 2: no reader ever passes a message; XEP-0313 §4.3.2: pages meet without gap or repeat, both ways.
async fn pages_cover_the_archive_in_both_directions(database: Database) {
    let limits = PageLimits { default: 5, max: 7, max_bytes: 1 << 20 };
    let mut world = World::new(database, limits, Retention::default()).await;
    for number in 0..33 {
        let (from, to) = if number % 3 == 0 { (BOB, ALICE) } else { (ALICE, BOB) };
        assert_eq!(world.receive(&encrypted(from, to, &format!("m{number:02}"))).await.len(), 2);
    }
    for owner in [ALICE, BOB] {
        let mut read = Vec::new();
        let mut page = set("<max>100</max>");
        loop {
            let answer = world.ask(owner, &page).await.unwrap();
            assert!(answer.items.len() <= 7);
            read.extend(names(&answer));
            let (first, last) = answer.fin.set.ends.clone().unwrap();
            assert_eq!(
                (first, last.clone()),
                (answer.items[0].archive_id.to_string(), answer.items.last().unwrap().archive_id.to_string(),)
            );
            if answer.fin.complete {
                break;
            }
            page = set(&format!("<after>{last}</after>"));
        }
        assert_eq!(read, numbered(0..33), "{owner}");

        let mut read = Vec::new();
        let mut page = format!("{}<flip-page/>", set("<before/>"));
        loop {
            let answer = world.ask(owner, &page).await.unwrap();
            read.extend(names(&answer));
            let (first, _) = answer.fin.set.ends.clone().unwrap();
            if answer.fin.complete {
                break;
            }
            page = format!("{}<flip-page/>", set(&format!("<before>{first}</before>")));
        }
        read.reverse();
        assert_eq!(read, numbered(0..33), "{owner} backwards");
    }
    // A reader that is at the end sees what comes next, and only that.
    let last = world.ask(ALICE, &set("<before/><max>1</max>")).await.unwrap().fin.set.ends.unwrap().1;
    let nothing = world.ask(ALICE, &set(&format!("<after>{last}</after>"))).await.unwrap();
    assert!(nothing.items.is_empty() && nothing.fin.complete && nothing.fin.set.ends.is_none());
    world.receive(&encrypted(ALICE, BOB, "new")).await;
    assert_eq!(names(&world.ask(ALICE, &set(&format!("<after>{last}</after>"))).await.unwrap()), ["new"]);
}

/// XEP-0313 §4.1: filters, ids and the errors for what is not there.
async fn filters_choose_what_they_say(database: Database) {
    let mut world = World::new(database, PageLimits::default(), Retention::default()).await;
    let carol = "carol@example.org/phone";
    let start = world.clock.now();
    for (from, to, id) in [
        ("alice@example.org/a", BOB, "m00"),
        (carol, ALICE, "m01"),
        ("bob@example.org/b", ALICE, "m02"),
        ("carol@example.org/other", ALICE, "m03"),
        (ALICE, ALICE, "m04"),
        ("bob@example.org/b", ALICE, "m05"),
    ] {
        world.receive(&encrypted(from, to, id)).await;
        world.clock.advance(HOUR);
    }
    let time = |hours: u32| start.plus(HOUR * hours).to_xmpp();
    let all = world.ask(ALICE, "").await.unwrap();
    assert!(all.fin.complete);
    let id = |name: &str| all.items.iter().find(|i| self::name(i) == name).unwrap().archive_id.to_string();
    let ask = async |fields: &[(&str, &str)]| names(&world.ask(ALICE, &form(fields)).await.unwrap());

    assert_eq!(ask(&[("with", BOB)]).await, ["m00", "m02", "m05"]);
    assert_eq!(ask(&[("with", "bob@example.org/b")]).await, ["m02", "m05"]);
    assert_eq!(ask(&[("with", "carol@example.org")]).await, ["m01", "m03"]);
    assert_eq!(ask(&[("with", "carol@example.org/phone")]).await, ["m01"]);
    assert_eq!(ask(&[("with", "nobody@example.org")]).await, Vec::<String>::new());
    assert_eq!(ask(&[("start", &time(1)), ("end", &time(3))]).await, ["m01", "m02", "m03"]);
    assert_eq!(ask(&[("start", &time(2)), ("with", BOB)]).await, ["m02", "m05"]);
    assert_eq!(ask(&[("after-id", &id("m01")), ("before-id", &id("m04"))]).await, ["m02", "m03"]);
    assert_eq!(ask(&[("ids", &id("m03"))]).await, ["m03"]);
    // To oneself: not every message matches, only those that went from the account to itself.
    assert_eq!(ask(&[("with", ALICE)]).await, ["m04"]);

    let range = set(&format!("<before>{}</before><after>{}</after>", id("m05"), id("m01")));
    assert_eq!(names(&world.ask(ALICE, &range).await.unwrap()), ["m02", "m03", "m04"]);
    let count = world.ask(ALICE, &format!("{}{}", form(&[("with", BOB)]), set("<max>0</max>"))).await.unwrap();
    assert_eq!((count.items.len(), count.fin.set.count), (0, Some(3)));

    // An id from the archive of another is not in this one.
    let bobs = world.ask(BOB, "").await.unwrap().items[0].archive_id.to_string();
    for query in [
        form(&[("after-id", &bobs)]),
        form(&[("before-id", "unheard-of")]),
        form(&[("ids", "unheard-of")]),
        set("<after>unheard-of</after>"),
        set(&format!("<before>{bobs}</before>")),
        format!("{}{}", form(&[("ids", "unheard-of")]), set("<max>0</max>")),
    ] {
        assert!(matches!(world.ask(ALICE, &query).await, Err(QueryError::UnknownId(_))), "{query}");
    }
    let ends = |owner: &str| {
        let (owner, requester) = (Owner::parse(owner).unwrap(), Requester::parse(owner).unwrap());
        let archive = world.archive.clone();
        async move { archive.metadata(&owner, &requester).await.unwrap() }
    };
    let (first, last) = (all.items.first().unwrap(), all.items.last().unwrap());
    let found = ends(ALICE).await.unwrap();
    assert_eq!(found.oldest, (first.archive_id.clone(), first.at));
    assert_eq!(found.newest, (last.archive_id.clone(), last.at));
    assert!(ends("dave@example.org").await.is_none());
    assert!(world.ask("dave@example.org", "").await.unwrap().fin.complete);
}

/// Invariant 1: nothing is stored twice; invariant 4: the bytes are kept as they came.
async fn a_retry_is_stored_once_and_bytes_stay(database: Database) {
    let mut world = World::new(database, PageLimits::default(), Retention::default()).await;
    let stanza = "<message from='alice@example.org/a' to='bob@example.org' id=\"it's &quot;1&quot;\"  type='chat'>\
        <body xml:lang='de'>a &amp; <![CDATA[<b>]]></body><x:y xmlns:x='urn:x' b=\"1\" a='2'/>\u{1f512}\n</message>";
    assert!(matches!(world.receive(stanza).await.as_slice(), [Appended::Stored(_), Appended::Stored(_)]));
    assert_eq!(world.receive(stanza).await, [Appended::Duplicate, Appended::Duplicate]);
    assert_eq!(world.store.archive_totals().await.unwrap().bodies, 1);
    for owner in ["alice@example.org/x", "bob@example.org/y"] {
        let answer = world.ask(owner, "").await.unwrap();
        let [item] = answer.items.as_slice() else { panic!("{} items", answer.items.len()) };
        let body = item.body.as_ref().unwrap();
        let whole = assemble(body, Some(item.from.as_str()), Some(item.to.as_str()), None, "").unwrap();
        assert_eq!(whole, stanza);
    }
}

/// Invariant 5: hidden at the instant, purged in small batches, and the limit is visible; invariant 3: no holes.
async fn what_expires_is_hidden_at_once_and_purged_later(database: Database) {
    let retention = Retention { content: Keep::For(HOUR * 10), plain: Keep::Forever, ..Retention::default() };
    let mut world = World::new(database, PageLimits::default(), retention).await;
    let timed = |id: &str| {
        encrypted(ALICE, BOB, id)
            .replace("</message>", "<ephemeral xmlns='urn:xmpp:ephemeral:0' timer='60'/></message>")
    };
    let plain = |id: &str| format!("<message from='{ALICE}' to='{BOB}' id='{id}'><body>x</body></message>");
    for stanza in [plain("m00"), timed("m01"), encrypted(ALICE, BOB, "m02"), timed("m03"), plain("m04")] {
        world.receive(&stanza).await;
    }
    let before = world.ask(BOB, "").await.unwrap();
    assert_eq!(names(&before), numbered(0..5));
    assert_eq!(before.fin.expired_before, None);

    world.clock.advance(Duration::from_secs(61));
    let hidden = world.ask(BOB, "").await.unwrap();
    assert_eq!(names(&hidden), ["m00", "-", "m02", "-", "m04"]);
    let ids = |answer: &Answer| answer.items.iter().map(|item| item.archive_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&hidden), ids(&before));

    let purge = async || {
        let settings = PurgeSettings { batch: 1, interval: HOUR };
        let stop = CancellationToken::new();
        purge_all(world.store.as_ref(), world.clock.as_ref(), settings, &world.metrics, &stop).await.unwrap()
    };
    assert_eq!(purge().await.bodies, 2);
    assert_eq!(world.store.archive_totals().await.unwrap().bodies, 3);
    let purged = world.ask(BOB, "").await.unwrap();
    assert_eq!((names(&purged), ids(&purged)), (names(&hidden), ids(&before)));
    // What expired is still a place to read on from.
    let after = set(&format!("<after>{}</after>", ids(&before)[1]));
    assert_eq!(names(&world.ask(BOB, &after).await.unwrap()), ["m02", "-", "m04"]);
    assert_eq!(world.store.purge_backlog(world.clock.now()).await.unwrap().0, 0);
}

/// Invariant 5: what is gone from the oldest end is told in the answer.
async fn an_answer_says_what_has_expired_before_it(database: Database) {
    let retention = Retention { content: Keep::For(HOUR), ..Retention::default() };
    let mut world = World::new(database, PageLimits::default(), retention).await;
    let sent = world.clock.now();
    world.receive(&encrypted(ALICE, BOB, "m00")).await;
    world.clock.advance(HOUR * 2);
    world.receive(&encrypted(ALICE, BOB, "m01")).await;
    // Until it is purged there may be a placeholder, but no message.
    let hidden = world.ask(BOB, "").await.unwrap();
    assert!(names(&hidden) == ["-", "m01"] || names(&hidden) == ["m01"], "{:?}", names(&hidden));
    let (settings, stop) = (PurgeSettings::default(), CancellationToken::new());
    purge_all(world.store.as_ref(), world.clock.as_ref(), settings, &world.metrics, &stop).await.unwrap();
    let purged = world.ask(BOB, "").await.unwrap();
    assert_eq!(names(&purged), ["m01"]);
    assert_eq!(purged.fin.expired_before, Some(sent.plus(HOUR)));
}

/// Invariant 4: a view trims only where the mapping from session to device is certain.
async fn a_device_known_by_what_it_sent_gets_its_own_headers(database: Database) {
    let mut world = World::new(database, PageLimits::default(), Retention::default()).await;
    world.receive(&encrypted(ALICE, BOB, "m00")).await;
    let headers = async |requester: &str| {
        let answer = world.ask(requester, "").await.unwrap();
        let body = String::from_utf8(answer.items[0].body.as_ref().unwrap().to_vec()).unwrap();
        body.matches("<key ").count()
    };
    assert_eq!(headers("bob@example.org/phone").await, 3);
    let (owner, device) = (Owner::parse(BOB).unwrap(), DeviceId::new(2).unwrap());
    let session = SessionJid::parse("bob@example.org/phone").unwrap();
    world.store.learn_session(&owner, Protocol::Omemo2, &session, device, world.clock.now()).await.unwrap();
    assert_eq!(headers("bob@example.org/phone").await, 1);
    assert_eq!(headers("bob@example.org/laptop").await, 3);
    assert_eq!(headers(BOB).await, 3);
    let saved = "<keys jid='alice@example.org'><key rid='3'>Q0ND</key></keys><key rid='1'>QUFB</key>".len();
    assert!(world.shows(&format!("multiend_archive_trimmed_bytes_total {saved}")));
}

/// Invariant 6: an archive answers its owner only.
async fn nobody_but_the_owner_gets_an_answer(database: Database) {
    let mut world = World::new(database, PageLimits::default(), Retention::default()).await;
    world.receive(&encrypted(ALICE, BOB, "m00")).await;
    let owner = Owner::parse(ALICE).unwrap();
    let query = Query::parse(&Element::parse(b"<query xmlns='urn:xmpp:mam:2'/>").unwrap()).unwrap();
    let others = ["bob@example.org/phone", "alice@elsewhere.example/x", "example.org", "alicia@example.org"];
    for other in others {
        let requester = Requester::parse(other).unwrap();
        let page = world.archive.query(&owner, &requester, &query).await;
        assert!(matches!(page, Err(QueryError::Forbidden)), "{other}");
        let ends = world.archive.metadata(&owner, &requester).await;
        assert!(matches!(ends, Err(QueryError::Forbidden)), "{other}");
    }
    assert!(world.shows(&format!("multiend_archive_queries_total{{outcome=\"forbidden\"}} {}", others.len() * 2)));
    for own in [ALICE, "Alice@Example.ORG/any"] {
        let page = world.archive.query(&owner, &Requester::parse(own).unwrap(), &query).await.unwrap();
        assert_eq!(names(&page), ["m00"], "{own}");
    }
}

/// XEP-0313 §4.3.4: flipping a page changes the order in which it is sent and nothing else. §4.3.1: page sizes.
async fn pages_have_the_size_and_the_order_asked_for(database: Database) {
    let limits = PageLimits { default: 3, max: 4, max_bytes: 1 << 20 };
    let mut world = World::new(database, limits, Retention::default()).await;
    for number in 0..6 {
        world.receive(&encrypted("alice@example.org/a", BOB, &format!("m{number:02}"))).await;
    }
    for (asked, given) in [("", 0..3), ("<max>2</max>", 0..2), ("<max>99</max>", 0..4), ("<before/>", 3..6)] {
        let flat = world.ask(BOB, &set(asked)).await.unwrap();
        assert_eq!(names(&flat), numbered(given), "{asked}");
        assert_eq!(flat.items[0].from.as_str(), "alice@example.org/a");
        assert_eq!(flat.items[0].to.as_str(), BOB);
        let mut flipped = world.ask(BOB, &format!("{}<flip-page/>", set(asked))).await.unwrap();
        flipped.items.reverse();
        assert_eq!(flipped, flat, "{asked}");
    }
    let source = b"<query xmlns='urn:xmpp:mam:2' node='urn:example'/>".as_slice();
    let node = Query::parse(&Element::parse(source).unwrap()).unwrap();
    let answer = world.archive.query(&Owner::parse(BOB).unwrap(), &Requester::parse(BOB).unwrap(), &node).await;
    assert!(matches!(answer, Err(QueryError::UnknownNode)));
}

/// Pages are bounded in bytes, and one message always fits.
async fn a_page_is_bounded_in_bytes(database: Database) {
    let limits = PageLimits { default: 50, max: 50, max_bytes: 700 };
    let mut world = World::new(database, limits, Retention::default()).await;
    for number in 0..4 {
        world.receive(&encrypted(ALICE, BOB, &format!("m{number:02}"))).await;
    }
    let large = format!("<body>{}</body></message>", "x".repeat(5_000));
    world.receive(&encrypted(ALICE, BOB, "m04").replace("</message>", &large)).await;
    let mut read = Vec::new();
    let mut page = String::new();
    loop {
        let answer = world.ask(BOB, &page).await.unwrap();
        let bytes: usize = answer.items.iter().map(|item| item.body.as_ref().unwrap().len()).sum();
        assert!(bytes <= 700 || answer.items.len() == 1, "{bytes} bytes");
        read.extend(names(&answer));
        if answer.fin.complete {
            break;
        }
        page = set(&format!("<after>{}</after>", answer.fin.set.ends.unwrap().1));
    }
    assert_eq!(read, numbered(0..5));
}

macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() { super::$test(super::Database::Sqlite).await; })+
        }
        mod postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::Database::Postgres).await; })+
        }
    };
}

on_both_databases!(
    pages_cover_the_archive_in_both_directions,
    filters_choose_what_they_say,
    a_retry_is_stored_once_and_bytes_stay,
    what_expires_is_hidden_at_once_and_purged_later,
    an_answer_says_what_has_expired_before_it,
    a_device_known_by_what_it_sent_gets_its_own_headers,
    a_page_is_bounded_in_bytes,
    nobody_but_the_owner_gets_an_answer,
    pages_have_the_size_and_the_order_asked_for,
);
