//! `urn:multiend:0` for the directory and its notices, through the alias door of a real Prosody (docs/protocol.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use multiend::directory::digest;
use multiend::model::{Device, DeviceId, DeviceList, Owner, Protocol, Timestamp};
use multiend::stanza::{bundle, tree};
use multiend::store::{Notice, NoticeKind, SharedStore};
use support::multiend::Multiend;
use support::omemo::{LEGACY, OMEMO_2, PUBSUB, TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN, typed};

const MULTIEND: &str = "urn:multiend:0";
const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const ALICE: &str = r"alice\40example.org@multiend.example.org";
const CAROL: &str = r"carol\40example.org@multiend.example.org";

struct Setup {
    prosody: Prosody,
    multiend: Multiend,
}

fn setup() -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    Setup { prosody, multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }

    /// The database behind the running program.
    async fn store(&self) -> SharedStore {
        let path = self.multiend.data_dir().join("multiend.sqlite3");
        multiend::store::open(&format!("sqlite:{}", path.display()), 2).await.unwrap()
    }
}

async fn ask(client: &mut Client, kind: &str, to: &str, payload: &str) -> Element {
    let answer = client.request(kind, Some(to), payload).await;
    typed::read(&answer);
    answer
}

async fn ok(client: &mut Client, kind: &str, to: &str, payload: &str) -> Element {
    let answer = ask(client, kind, to, payload).await;
    assert_eq!(answer.attr("type"), Some("result"), "{payload}\n=> {}", String::from(&answer));
    answer.children().next().cloned().unwrap_or_else(|| Element::bare("nothing", MULTIEND))
}

async fn refused(client: &mut Client, kind: &str, to: &str, payload: &str) -> String {
    let answer = ask(client, kind, to, payload).await;
    assert_eq!(answer.attr("type"), Some("error"), "{payload}\n=> {}", String::from(&answer));
    error_condition(&answer).expect("a condition").to_owned()
}

fn device(id: u32) -> TestDevice {
    TestDevice { id, seed: u8::try_from(id).unwrap() }
}

/// A request with its protocol, attributes and children.
fn request(name: &str, protocol: &str, attributes: &str, inner: &str) -> String {
    format!("<{name} xmlns='{MULTIEND}' protocol='{protocol}' {attributes}>{inner}</{name}>")
}

fn of_device(name: &str, id: u32) -> String {
    request(name, OMEMO_2, &format!("device='{id}'"), "")
}

async fn publish_devices(client: &mut Client, to: &str, ids: &[u32], prekeys: u32) {
    for id in ids {
        ok(client, "set", to, &publish(BUNDLES, &id.to_string(), &device(*id).bundle(1..=prekeys))).await;
    }
    ok(client, "set", to, &publish(DEVICES, "current", &devices(ids))).await;
}

/// What a claim gave of one account: device by device the id of the prekey, or the condition of the error.
type OfAccount = (String, Vec<(u32, Result<u32, String>)>);

/// What a claim gave, account by account.
fn claimed(answer: &Element) -> Vec<OfAccount> {
    assert!(answer.is("claim", MULTIEND), "{}", String::from(answer));
    let condition = |error: &Element| error.children().next().unwrap().name().to_owned();
    let one = |device: &Element| {
        let id = device.attr("id").unwrap().parse().unwrap();
        let content = device.children().next().unwrap();
        let result = if content.name() == "bundle" { Ok(content) } else { Err(condition(content)) };
        (
            id,
            result.map(prekeys_of).map(|prekeys| {
                assert_eq!(prekeys.len(), 1, "one prekey each");
                prekeys[0].0
            }),
        )
    };
    answer
        .children()
        .map(|account| {
            let jid = account.attr("jid").unwrap_or_default().to_owned();
            match account.children().next() {
                Some(error) if error.name() == "error" => (jid, vec![(0, Err(condition(error)))]),
                _ => (jid, account.children().map(one).collect()),
            }
        })
        .collect()
}

#[tokio::test]
async fn many_devices_of_many_accounts_are_claimed_in_one_request() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let mut carol = setup.client("carol", "phone").await;
    publish_devices(&mut alice, ALICE, &[1, 2], 2).await;
    publish_devices(&mut carol, COMPONENT, &[7, 8], 2).await;
    let legacy = format!("{LEGACY}.bundles:9");
    ok(&mut carol, "set", COMPONENT, &publish(&legacy, "current", &device(9).legacy_bundle(1..=2))).await;

    let mut bob = setup.client("bob", "phone").await;
    let accounts = format!(
        "<account jid='alice@example.org'><device id='2'/><device id='5'/></account><account jid='{CAROL}'/>\
         <account jid='nobody@example.org'/><account jid='eve@evil.example'><device id='1'/></account>"
    );
    let wanted = request("claim", OMEMO_2, "", &accounts);
    let missing = || Err("item-not-found".to_owned());
    let expected = [
        ("alice@example.org".to_owned(), vec![(2, Ok(1)), (5, missing())]),
        (CAROL.to_owned(), vec![(7, Ok(1)), (8, Ok(1))]),
        ("nobody@example.org".to_owned(), vec![(0, missing())]),
        ("eve@evil.example".to_owned(), vec![(1, missing())]),
    ];
    // Directory 2: the same requester gets the same keys again, whichever address it asks, and also by an ordinary fetch.
    for to in [COMPONENT, ALICE, CAROL] {
        assert_eq!(claimed(&ok(&mut bob, "set", to, &wanted).await), expected, "{to}");
    }
    let answer = bob.request("get", Some(CAROL), &items(BUNDLES, &["7"])).await;
    assert_eq!(prekeys_of(&items_of(&answer)[0].1)[0].0, 1);
    // Without a name it is the account that is asked; in the other protocol, too.
    let own = request("claim", LEGACY, "", "<account><device id='9'/></account>");
    assert_eq!(claimed(&ok(&mut bob, "set", CAROL, &own).await), [(String::new(), vec![(9, Ok(1))])]);
    // A sibling is claimed from like anybody else: no two devices start a session with one key.
    let mut laptop = setup.client("alice", "laptop").await;
    let siblings = request("claim", OMEMO_2, "", "<account jid='alice@example.org'/>");
    let keys = claimed(&ok(&mut laptop, "set", COMPONENT, &siblings).await);
    assert_eq!(keys, [("alice@example.org".to_owned(), vec![(1, Ok(1)), (2, Ok(2))])]);
}

#[tokio::test]
async fn directory_4_a_strict_claim_gets_no_last_resort() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    publish_devices(&mut alice, ALICE, &[1], 1).await;
    let mut bob = setup.client("bob", "phone").await;
    let mut carol = setup.client("carol", "phone").await;
    let claim = |strict: &str| request("claim", OMEMO_2, strict, "<account><device id='1'/></account>");
    assert_eq!(claimed(&ok(&mut bob, "set", ALICE, &claim("strict='true'")).await)[0].1, [(1, Ok(1))]);
    let none_left = [(1, Err("resource-constraint".to_owned()))];
    assert_eq!(claimed(&ok(&mut carol, "set", ALICE, &claim("strict='true'")).await)[0].1, none_left);
    assert_eq!(claimed(&ok(&mut carol, "set", ALICE, &claim("")).await)[0].1, [(1, Ok(1))]);
}

#[tokio::test]
async fn a_claim_is_bounded_and_what_makes_no_sense_is_refused() {
    let setup = setup();
    let mut bob = setup.client("bob", "phone").await;
    let many: String = (1..=257).map(|id| format!("<device id='{id}'/>")).collect();
    let many = format!("<account jid='alice@example.org'>{many}</account>");
    for (kind, payload, condition) in [
        ("set", request("claim", OMEMO_2, "", ""), "bad-request"),
        ("set", request("claim", "urn:xmpp:omemo:1", "", "<account/>"), "bad-request"),
        ("set", request("claim", OMEMO_2, "", &many), "policy-violation"),
        ("get", request("claim", OMEMO_2, "", "<account/>"), "feature-not-implemented"),
        ("set", request("add-device", OMEMO_2, "device='0'", ""), "bad-request"),
        ("get", request("stock", OMEMO_2, "", ""), "bad-request"),
        ("set", request("invented", OMEMO_2, "", ""), "feature-not-implemented"),
    ] {
        assert_eq!(refused(&mut bob, kind, COMPONENT, &payload).await, condition, "{payload}");
    }
}

#[tokio::test]
async fn directory_6_devices_add_and_remove_themselves_at_once_and_none_is_lost() {
    let setup = setup();
    let mut old = setup.client("alice", "old").await;
    ok(&mut old, "set", ALICE, &publish(DEVICES, "current", &devices(&[91, 92]))).await;
    let mut bob = setup.client("bob", "phone").await;
    let subscribe =
        format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='bob@example.org/phone'/></pubsub>");
    ok(&mut bob, "set", ALICE, &subscribe).await;

    let mut sessions = Vec::new();
    for number in 1..=12 {
        sessions.push(setup.client("alice", &format!("r{number}")).await);
    }
    // All is written before any answer is read.
    for (session, number) in sessions.iter_mut().zip(1..) {
        let payload = match number {
            11 | 12 => of_device("remove-device", 80 + number),
            _ => of_device("add-device", number),
        };
        session.send_raw(&format!("<iq type='set' id='race' to='{ALICE}'>{payload}</iq>")).await;
    }
    for session in &mut sessions {
        let answer = session.wait_for("the answer", |stanza| stanza.attr("id") == Some("race")).await;
        typed::read(&answer);
    }
    let list = items_of(&bob.request("get", Some(ALICE), &items(DEVICES, &[])).await).remove(0).1;
    let mut ids = ids_of(&list);
    ids.sort_unstable();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>(), "all additions survive, and both removals");
    let last = bob
        .wait_for("the last event", |stanza| {
            let text = String::from(stanza);
            stanza.name() == "message" && (1..=10).all(|id| text.replace('"', "'").contains(&format!("id='{id}'")))
        })
        .await;
    typed::read(&last);
    assert_eq!(last.attr("from"), Some(ALICE));
}

#[tokio::test]
async fn directory_10_one_device_is_added_and_removed_by_its_owner_only() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let add = |label: &str| request("add-device", OMEMO_2, &format!("device='5' {label}"), "");
    let list = ok(&mut alice, "set", COMPONENT, &add("label='my phone' labelsig='c2ln'")).await;
    assert!(list.is("list", MULTIEND), "{}", String::from(&list));
    let listed = list.get_child("devices", OMEMO_2).unwrap().children().next().unwrap();
    assert_eq!(
        (listed.attr("id"), listed.attr("label"), listed.attr("labelsig")),
        (Some("5"), Some("my phone"), Some("c2ln"))
    );
    let mut bob = setup.client("bob", "phone").await;
    for payload in [add(""), of_device("remove-device", 5)] {
        assert_eq!(refused(&mut bob, "set", ALICE, &payload).await, "forbidden");
    }
    for payload in [of_device("stock", 5), of_device("check", 5)] {
        assert_eq!(
            refused(&mut bob, "get", ALICE, &payload).await,
            "forbidden",
            "nobody learns how much it is written to"
        );
    }
    ok(&mut alice, "set", ALICE, &publish(BUNDLES, "5", &device(5).bundle(1..=2))).await;
    let list = ok(&mut alice, "set", ALICE, &of_device("remove-device", 5)).await;
    assert_eq!(ids_of(list.get_child("devices", OMEMO_2).unwrap()), Vec::<u32>::new());
    assert_eq!(
        refused(&mut alice, "get", ALICE, &items(BUNDLES, &["5"])).await,
        "item-not-found",
        "its bundle goes, too"
    );
    assert_eq!(refused(&mut alice, "set", ALICE, &of_device("remove-device", 5)).await, "item-not-found");
}

#[tokio::test]
async fn a_device_asks_for_its_stock_and_checks_what_is_published() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    assert_eq!(refused(&mut alice, "get", ALICE, &of_device("stock", 5)).await, "item-not-found");
    let nothing = ok(&mut alice, "get", ALICE, &of_device("check", 5)).await;
    assert_eq!(nothing.children().count(), 0, "nothing is published");
    publish_devices(&mut alice, ALICE, &[5, 6], 2).await;
    let mut bob = setup.client("bob", "phone").await;
    bob.request("get", Some(ALICE), &items(BUNDLES, &["5"])).await;

    let stock = ok(&mut alice, "get", COMPONENT, &of_device("stock", 5)).await;
    let count = |name: &str| stock.attr(name).unwrap().to_owned();
    assert_eq!((count("unissued"), count("issued"), count("consumed")), ("1".into(), "1".into(), "0".into()));
    let states: Vec<_> =
        stock.children().map(|prekey| (prekey.attr("id").unwrap(), prekey.attr("state").unwrap())).collect();
    assert_eq!(states, [("2", "unissued"), ("1", "issued")]);
    // One of an earlier bundle is told about when it is named.
    ok(&mut alice, "set", ALICE, &publish(BUNDLES, "5", &device(5).bundle(2..=2))).await;
    let named = request("stock", OMEMO_2, "device='5'", "<prekey id='1'/><prekey id='77'/>");
    let stock = ok(&mut alice, "get", ALICE, &named).await;
    let states: Vec<_> = stock.children().map(|prekey| (prekey.attr("id"), prekey.attr("state"))).collect();
    assert_eq!(states, [(Some("2"), Some("unissued")), (Some("1"), Some("issued"))]);

    let published = device(5).bundle(2..=2);
    let tree = tree::Element::parse(published.as_bytes()).unwrap();
    let id = |id| DeviceId::new(id).unwrap();
    let parsed = bundle::parse(&tree, Protocol::Omemo2).unwrap();
    let expected_bundle = STANDARD.encode(digest::of_bundle(&parsed, id(5), Protocol::Omemo2));
    let list = DeviceList::new(vec![Device::unlabelled(id(5)), Device::unlabelled(id(6))]).unwrap();
    let expected_list = STANDARD.encode(digest::of_list(&list, Protocol::Omemo2));
    let check = ok(&mut alice, "get", ALICE, &of_device("check", 5)).await;
    let (bundle, list) = (check.get_child("bundle", MULTIEND).unwrap(), check.get_child("list", MULTIEND).unwrap());
    assert_eq!((bundle.attr("sha-256"), bundle.attr("unissued")), (Some(expected_bundle.as_str()), Some("1")));
    assert_eq!((list.attr("sha-256"), list.attr("listed")), (Some(expected_list.as_str()), Some("true")));
    ok(&mut alice, "set", ALICE, &of_device("remove-device", 5)).await;
    let check = ok(&mut alice, "get", ALICE, &of_device("check", 5)).await;
    assert!(check.get_child("bundle", MULTIEND).is_none());
    assert_eq!(check.get_child("list", MULTIEND).unwrap().attr("listed"), Some("false"));
}

async fn notify(store: &SharedStore, number: Option<u32>, kind: NoticeKind) {
    let notice = Notice {
        owner: Owner::parse("alice@example.org").unwrap(),
        protocol: Protocol::Omemo2,
        device: number.map(|id| DeviceId::new(id).unwrap()),
        kind,
        at: Timestamp::from_micros(1_780_000_000_000_000),
    };
    assert!(store.add_notice(&notice).await.unwrap());
}

#[tokio::test]
async fn notices_reach_the_device_or_else_the_account_and_events_the_subscribers() {
    let mut setup = setup();
    let mut phone = setup.client("alice", "phone").await;
    let mut laptop = setup.client("alice", "laptop").await;
    let mut bob = setup.client("bob", "phone").await;
    publish_devices(&mut phone, ALICE, &[5], 1).await;
    let subscribe = format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='bob@example.org'/></pubsub>");
    ok(&mut bob, "set", ALICE, &subscribe).await;
    bob.request("get", Some(ALICE), &items(BUNDLES, &["5"])).await;
    let store = setup.store().await;

    // The phone has published from this session: it alone is told. Of device 6 nobody knows which session it is.
    notify(&store, Some(5), NoticeKind::LowStock).await;
    let told = phone.wait_for("the low-stock notice", |stanza| stanza.has_child("low-stock", MULTIEND)).await;
    assert_eq!((told.attr("from"), told.attr("type")), (Some(ALICE), Some("headline")));
    let low = told.get_child("low-stock", MULTIEND).unwrap();
    assert_eq!((low.attr("device"), low.attr("unissued"), low.attr("protocol")), (Some("5"), Some("0"), Some(OMEMO_2)));
    notify(&store, Some(6), NoticeKind::Restored).await;
    for client in [&mut phone, &mut laptop] {
        let told = client.wait_for("the notice", |stanza| stanza.has_child("restored", MULTIEND)).await;
        assert_eq!(told.get_child("restored", MULTIEND).unwrap().attr("device"), Some("6"));
    }
    let others = laptop.everything_until_pong(DOMAIN).await;
    assert!(others.iter().all(|stanza| !stanza.has_child("low-stock", MULTIEND)), "{others:?}");

    // What comes up while the link is down is sent when it is up again, unless it is not so any more.
    setup.multiend.terminate();
    notify(&store, Some(5), NoticeKind::Quarantined).await;
    notify(&store, Some(6), NoticeKind::Removed).await;
    notify(&store, Some(5), NoticeKind::Restored).await;
    notify(&store, None, NoticeKind::ListChanged).await;
    setup.multiend.restart();
    for name in ["removed", "restored"] {
        phone.wait_for(name, |stanza| stanza.has_child(name, MULTIEND)).await;
    }
    let event = bob.wait_for("the event", |stanza| stanza.name() == "message").await;
    typed::read(&event);
    assert!(String::from(&event).replace('"', "'").contains("<device id='5'"), "{}", String::from(&event));
    for (kind, count) in
        [("removed", 1.0), ("restored", 1.0), ("list-changed", 1.0), ("low-stock", 0.0), ("quarantined", 0.0)]
    {
        let metric = format!("multiend_directory_notices_total{{kind=\"{kind}\",result=\"sent\"}}");
        assert!((setup.multiend.metric(&metric) - count).abs() < 0.1, "{metric}");
    }
    assert!(
        store
            .take_notices(9, std::time::Duration::ZERO, Timestamp::from_micros(i64::MAX / 2))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn nothing_here_ends_the_stream() {
    let setup = setup();
    let mut bob = setup.client("bob", "phone").await;
    // 64 accounts with addresses as long as they may be, all unknown.
    let accounts: String = (0..64)
        .map(|n| format!("<account jid='{}{n}@example.org'><device id='1'/></account>", "x".repeat(1_000)))
        .collect();
    ok(&mut bob, "set", COMPONENT, &request("claim", OMEMO_2, "", &accounts)).await;
    assert!(setup.multiend.metric("multiend_link_reconnects_total") < 0.5);
}
