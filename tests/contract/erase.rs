//! Erasing an account, and exporting it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use multiend::admin::erase::erase;
use multiend::admin::export::{ExportError, export};
use multiend::admin::long_work::quietly;
use multiend::model::{
    ArchiveDefault, ArchivePreferences, Copy, Direction, Owner, Protocol, ProtocolDevice, SessionJid, SystemClock,
};
use multiend::store::{NodeKind, SharedStore};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use super::append::all_of;
use super::database::Database;
use super::words::{
    DAY, OMEMO2, alice, at, claim, copy, device, id, jid, list, message, plain_bundle, publish, session,
};

const CAROL: &str = "carol@example.net";
const OWN_CANARY: &str = "canary-of-carol-alone";
const SHARED_CANARY: &str = "canary-of-carol-and-alice";

fn carol() -> Owner {
    Owner::parse(CAROL).unwrap()
}

/// Carol and alice, each with something of every kind, and each named in the data of the other.
async fn fill(store: &SharedStore) {
    publish(store, &plain_bundle(1, 1..=20)).await;
    claim(store, "carol", at(0)).await;
    let phone = SessionJid::parse("carol@example.net/phone").unwrap();
    let mut bundle = plain_bundle(2, 100..=120);
    bundle.payload = Bytes::from(format!("<bundle xmlns='urn:xmpp:omemo:2'>{OWN_CANARY}</bundle>"));
    store.publish_bundle(&carol(), OMEMO2, device(5), &phone, &bundle, at(0)).await.unwrap();
    store.publish_device_list(&carol(), OMEMO2, &phone, &list(&[5]), 9, at(0)).await.unwrap();
    store.device_list(&carol(), OMEMO2, Some(&phone)).await.unwrap();
    for (owner, subscriber) in
        [(alice(), "carol@example.net/phone"), (alice(), "carol@example.net.evil/x"), (carol(), "alice@example.org")]
    {
        assert!(store.subscribe(&owner, OMEMO2, NodeKind::DeviceList, &jid(subscriber), 9).await.unwrap());
    }
    let received = |name: &str| Copy { owner: carol(), ..copy(name, "alice@example.org/phone") };
    let mut batch: Vec<_> =
        (0..30).map(|n| message(&format!("{OWN_CANARY} {n}"), at(n), vec![received(&format!("own{n}"))])).collect();
    for n in 0..5 {
        let sent = Copy { direction: Direction::Sent, ..copy(format!("a{n}"), "carol@example.net") };
        let copies = vec![sent, received(&format!("c{n}"))];
        batch.push(message(&format!("{SHARED_CANARY} {n}"), at(40), copies));
    }
    store.append(&batch).await.unwrap();
    let never = BTreeSet::from([jid("eve@example.net")]);
    let preferences = ArchivePreferences::new(ArchiveDefault::Always, BTreeSet::new(), never).unwrap();
    store.set_preferences(&carol(), &preferences, at(0)).await.unwrap();
    let devices = [ProtocolDevice { protocol: Protocol::Omemo2, device: device(5) }];
    store.move_cursors(&carol(), &devices, &id("own3"), at(0)).await.unwrap().unwrap();
    store.set_aside(&message(OWN_CANARY, at(0), vec![received("dead")]), "why", at(0)).await.unwrap();
    store.learn_session(&carol(), OMEMO2, &phone, device(5), at(0)).await.unwrap();
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1]), 9, at(0)).await.unwrap();
}

/// Every column of every table.
async fn columns(database: &Database) -> BTreeMap<String, Vec<(String, bool)>> {
    let rows: Vec<(String, String, String)> = if database.is_sqlite() {
        let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
        let all = "SELECT t.name, c.name, lower(c.type) FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
        sqlx::query_as(all).fetch_all(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let all = "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
             WHERE table_schema = current_schema()";
        sqlx::query_as(all).fetch_all(&mut connection).await.unwrap()
    };
    let mut tables = BTreeMap::<String, Vec<(String, bool)>>::new();
    for (table, column, kind) in rows.into_iter().filter(|(table, ..)| table != "_sqlx_migrations") {
        tables.entry(table).or_default().push((column, kind == "text"));
    }
    tables
}

/// Everything that the database holds, as text, in which a search would find a name.
async fn everything(database: &Database) -> Vec<u8> {
    let Some(dir) = &database.dir else {
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let mut all = String::new();
        for table in columns(database).await.into_keys() {
            let sql = AssertSqlSafe(format!("SELECT t::text FROM \"{table}\" t"));
            let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
            all.extend(rows);
        }
        return all.into_bytes();
    };
    database.execute("VACUUM").await;
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
    std::fs::read_dir(dir.path()).unwrap().flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

async fn holds(database: &Database, needle: &str) -> bool {
    let all = everything(database).await;
    // PostgreSQL shows bytes in hexadecimal; a dead letter is base64 within.
    let hex: String = needle.bytes().map(|byte| format!("{byte:02x}")).collect();
    [needle, &hex].iter().any(|needle| all.windows(needle.len()).any(|window| window == needle.as_bytes()))
}

pub async fn everything_of_an_erased_account_goes_and_nothing_of_others(database: Database) {
    let store = database.open().await;
    fill(&store).await;
    assert!(holds(&database, OWN_CANARY).await && holds(&database, CAROL).await);
    let issued = store.stock(&alice(), OMEMO2, device(1)).await.unwrap();
    assert_eq!(issued.issued, 1);

    let erased = erase(store.as_ref(), &carol(), quietly).await.unwrap();
    assert!(erased.owned >= 35 && erased.named >= 2, "{erased:?}");
    assert!(!holds(&database, OWN_CANARY).await, "what only carol had is gone");
    assert!(holds(&database, SHARED_CANARY).await, "what alice has too is alice's");
    assert!(!store.account_exists(&carol()).await.unwrap());
    assert_eq!(all_of(&store, &alice()).await.len(), 5);
    assert_eq!(store.archive_totals().await.unwrap().bodies, 5);
    let subscribers = store.subscribers(&alice(), OMEMO2, NodeKind::DeviceList).await.unwrap();
    assert_eq!(subscribers, [jid("carol@example.net.evil/x")], "a name that begins alike is another");
    assert_eq!(store.stock(&alice(), OMEMO2, device(1)).await.unwrap(), issued, "an issued prekey stays issued");
    // Again, after an interruption say, is no error.
    assert_eq!(erase(store.as_ref(), &carol(), quietly).await.unwrap().owned, 0);

    store.unsubscribe(&alice(), OMEMO2, NodeKind::DeviceList, &jid("carol@example.net.evil/x")).await.unwrap();
    erase(store.as_ref(), &alice(), quietly).await.unwrap();
    for gone in [SHARED_CANARY, CAROL, "alice@example.org"] {
        assert!(!holds(&database, gone).await, "{gone} is still there");
    }
    assert_eq!(store.archive_totals().await.unwrap(), Default::default());
}

/// Stopped after each step, and begun again each time: it comes to its end, and nothing is left.
pub async fn erasing_goes_on_where_it_was_stopped(database: Database) {
    let store = database.open().await;
    fill(&store).await;
    let (mut stops, owner) = (0, carol());
    loop {
        let mut steps = 0;
        let erased = erase(store.as_ref(), &owner, |_| {
            steps += 1;
            // Each time one step more, so that it is stopped at every place.
            if steps > stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if erased.await.unwrap().complete {
            break;
        }
        stops += 1;
        assert!(stops < 1_000);
    }
    assert!(stops > 0);
    assert!(!store.account_exists(&carol()).await.unwrap());
    assert!(!holds(&database, OWN_CANARY).await && holds(&database, SHARED_CANARY).await);
}

/// Two who wrote with each other are erased at the same time: the bodies that they shared go with the second.
pub async fn shared_bodies_go_with_the_last_copy_whoever_comes_last(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    fill(&one).await;
    let (carol, alice) = (carol(), alice());
    let (first, second) = tokio::join!(erase(one.as_ref(), &carol, quietly), erase(two.as_ref(), &alice, quietly));
    first.unwrap();
    second.unwrap();
    assert_eq!(one.archive_totals().await.unwrap(), Default::default());
}

/// Whoever adds a column that can hold a JID says here why erasing an account covers it.
pub async fn every_column_that_may_name_an_account_is_covered(database: Database) {
    // Tables without a column `account`, which tells what is the account's own.
    const WITHOUT_ACCOUNT: [&str; 9] = [
        "account",    // the last to go
        "body",       // goes with its last copy
        "body_block", // as do the messages in it
        "meta",       // the deployment's
        "dead_letter",
        "dead_letter_owner", // by owner
        "claim_budget",      // by name
        "deployment",
        "device_watch", // the deployment's
    ];
    // Texts that name nobody but the account of the row, or are taken out of the data of others.
    const TEXTS: [(&str, &str); 10] = [
        ("account", "jid"),
        ("subscription", "subscriber"),
        ("prekey", "claimant"),
        ("last_resort", "claimant"),
        ("claim_budget", "name"),
        ("dead_letter", "id"),
        ("dead_letter", "reason"),
        ("dead_letter_owner", "owner"),
        ("dead_letter_owner", "letter"),
        ("meta", "key"),
    ];
    // In rows of the account itself these go with it; in rows of others they are those others' own.
    const OWN: [&str; 13] = [
        "resource",
        "own_resource",
        "label",
        "label_signature",
        "item_id",
        "devices",
        "archive_id",
        "jid",
        "peer",
        "peer_resource",
        "note",
        "nonce",
        "reason",
    ];
    for (table, columns) in columns(&database).await {
        let has_account = columns.iter().any(|(column, _)| column == "account");
        assert!(
            has_account || WITHOUT_ACCOUNT.contains(&table.as_str()),
            "{table} has no column `account`: how is it erased? (src/store/erase.rs)"
        );
        for (column, _) in columns.iter().filter(|(_, is_text)| *is_text) {
            let covered =
                TEXTS.contains(&(table.as_str(), column.as_str())) || (has_account && OWN.contains(&column.as_str()));
            assert!(covered, "{table}.{column} may name an account: how is it erased? (src/store/erase.rs)");
        }
    }
}

pub async fn an_export_holds_what_the_account_has(database: Database) {
    let store = database.open().await;
    fill(&store).await;
    let mut batch = Vec::new();
    for n in 0..150 {
        let body = format!("<message type='chat' id='m{n}'><body>text {n}</body></message>");
        batch.push(message(&body, at(100 + n), vec![Copy { owner: carol(), ..copy(format!("m{n}"), "bob@b/x") }]));
    }
    let mut expired = message(
        "<message><body>gone</body></message>",
        at(300),
        vec![Copy { owner: carol(), ..copy("gone", "bob@b") }],
    );
    expired.copies[0].expires_at = Some(at(0).minus(DAY));
    batch.push(expired);
    store.append(&batch).await.unwrap();
    let mut out = Vec::new();
    export(store.as_ref(), &SystemClock, &carol(), &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let (_, document) = text.split_once("?>\n").unwrap();
    let tree: minidom::Element = document.parse().unwrap();
    assert!(tree.is("server-data", "urn:xmpp:pie:0"));
    let host = tree.get_child("host", "urn:xmpp:pie:0").unwrap();
    assert_eq!(host.attr("jid"), Some("example.net"));
    let user = host.get_child("user", "urn:xmpp:pie:0").unwrap();
    assert_eq!(user.attr("name"), Some("carol"));
    let items = user.get_child("pubsub", "http://jabber.org/protocol/pubsub").unwrap();
    let nodes: Vec<_> = items.children().map(|items| items.attr("node").unwrap()).collect();
    assert_eq!(nodes, ["urn:xmpp:omemo:2:devices", "urn:xmpp:omemo:2:bundles"]);
    let configured = user.get_child("pubsub", "http://jabber.org/protocol/pubsub#owner").unwrap();
    assert_eq!(configured.children().count(), nodes.len());
    assert!(user.get_child("prefs", "urn:xmpp:mam:2").is_some());
    let archive = user.get_child("archive", "urn:xmpp:pie:0#mam").unwrap();
    let ids: Vec<_> = archive.children().map(|result| result.attr("id").unwrap()).collect();
    assert_eq!(ids.len(), 30 + 5 + 150 + 1);
    assert_eq!((ids[0], ids[35], ids[184], ids[185]), ("own0", "m0", "m149", "gone"));
    let stamped = |result: &minidom::Element| {
        let forwarded = result.get_child("forwarded", "urn:xmpp:forward:0").unwrap();
        forwarded.get_child("delay", "urn:xmpp:delay").unwrap().attr("stamp").unwrap().to_owned()
    };
    let times: Vec<_> = archive.children().map(stamped).collect();
    assert!(times.is_sorted());
    let last = archive.children().nth(184).unwrap();
    let message =
        last.get_child("forwarded", "urn:xmpp:forward:0").unwrap().get_child("message", "jabber:client").unwrap();
    assert_eq!((message.attr("from"), message.attr("to")), (Some("bob@b/x"), Some(CAROL)));
    assert!(!text.contains("gone</body>") && !text.contains(&format!("<jid>{CAROL}")));

    let nobody = Owner::parse("nobody@example.net").unwrap();
    let unknown = export(store.as_ref(), &SystemClock, &nobody, &mut Vec::new()).await;
    assert!(matches!(unknown, Err(ExportError::Unknown(_))));
}
