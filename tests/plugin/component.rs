//! What the plugin says to a component, and what it makes of one that answers late, wrongly, or not at all.

use minidom::Element;

use super::messages::stanza_ids;
use crate::support::component::{Component, Stanza};
use crate::support::omemo::{items, publish};
use crate::support::xmpp::{Client, befriend, error_condition};
use crate::support::{COMPONENT, DOMAIN, SECRET};
use crate::{ALICE, BOB, BUNDLES, DEVICES, Deployment, OMEMO, Server, send};

const PLUGIN: &str = "urn:multiend:plugin:0";
const DELEGATION: &str = "urn:xmpp:delegation:2";
/// More than this no plugin sends in one stanza (docs/plugin-protocol.md).
const STANZA_BYTES: usize = 512 * 1024;

async fn client(server: &Server, user: &str, resource: &str) -> Client {
    let mut client = Client::connect(server.c2s_port(), DOMAIN, user, resource).await;
    client.online().await;
    client
}

async fn component(server: &Server) -> Component {
    Component::connect(server.component_port(), COMPONENT, SECRET).await
}

/// The next batch of copies.
async fn batch(component: &mut Component) -> Stanza {
    let stanza = component.wait_for("copies", |e| e.has_child("copies", PLUGIN)).await;
    assert!(stanza.bytes <= STANZA_BYTES, "{}", stanza.bytes);
    stanza
}

/// The next request of a client: the IQ that wraps it.
async fn request(component: &mut Component) -> Element {
    component.wait_for("a request", |e| e.has_child("delegation", DELEGATION)).await.element
}

fn wrapper(request: &Element) -> &Element {
    request.get_child("delegation", DELEGATION).unwrap()
}

/// Owner, direction, stanza id and archive id of each copy.
fn copies(batch: &Element) -> Vec<[String; 4]> {
    let copies = batch.get_child("copies", PLUGIN).unwrap();
    let of = |copy: &Element, name| copy.attr(name).unwrap().to_owned();
    let message = |copy: &Element| of(copy.children().find(|child| child.name() == "message").unwrap(), "id");
    // Elements of other names among them mean nothing.
    let copies = copies.children().filter(|child| child.name() == "copy");
    copies.map(|c| [of(c, "owner"), of(c, "direction"), message(c), of(c, "id")]).collect()
}

/// What the two archives are to have of messages `0..count` of alice's to bob, without the archive ids.
fn expected(count: usize) -> Vec<[String; 3]> {
    let both = |n: usize| [[ALICE, "sent"], [BOB, "received"]].map(|[o, d]| [o.into(), d.into(), format!("m{n}")]);
    (0..count).flat_map(both).collect()
}

#[tokio::test]
async fn who_never_acknowledges_is_given_the_same_batch_again_and_no_other() {
    let server = Deployment::new(&["alice", "bob"]).option("timeout", 1).option("batch", 5).start();
    let mut component = component(&server).await;
    let (mut alice, mut bob) = (client(&server, "alice", "phone").await, client(&server, "bob", "phone").await);
    let mut stamped = Vec::new();
    for n in 0..12 {
        send(&mut alice, BOB, &format!("m{n}"), OMEMO).await;
        let live = bob.wait_for("the message", |e| e.attr("id") == Some(&format!("m{n}"))).await;
        stamped.push(stanza_ids(&live)[0].1.clone());
    }
    let first = batch(&mut component).await.element;
    let under_way = copies(&first);
    assert!(!under_way.is_empty() && under_way.len() <= 5, "{under_way:?}");
    for _ in 0..2 {
        // Nothing is said for its time; and then it is too much.
        let again = batch(&mut component).await.element;
        assert_eq!(copies(&again), under_way, "one window, and it does not move on");
        component.refuse(&again, "wait", "resource-constraint").await;
    }
    // A query tells that copies of its owner are still on their way, and is not kept waiting for ever.
    alice.send_raw("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>").await;
    let asked = request(&mut component).await;
    assert_eq!(wrapper(&asked).attr("unsettled"), Some("true"));
    let told = alice.wait_for("an answer", |e| e.attr("id") == Some("q")).await;
    assert_eq!(error_condition(&told), Some("remote-server-timeout"));

    // Once it acknowledges, everything comes: in order, none left out, within the bounds.
    let mut taken = Vec::new();
    while taken.len() < 24 {
        let next = batch(&mut component).await.element;
        let of_batch = copies(&next);
        assert!(of_batch.len() <= 5);
        assert_eq!(of_batch[0][..3], expected(12)[taken.len()], "where the last acknowledged one ended");
        component.answer(&next, &format!("<copies xmlns='{PLUGIN}'/>")).await;
        taken.extend(of_batch);
    }
    let without_ids: Vec<_> = taken.iter().map(|[owner, to, id, _]| [owner.clone(), to.clone(), id.clone()]).collect();
    assert_eq!(without_ids, expected(12));
    let of_bob: Vec<_> = taken.iter().filter(|copy| copy[0] == BOB).map(|copy| copy[3].clone()).collect();
    assert_eq!(of_bob, stamped, "archived under the id that was stamped on the live message");

    alice.everything_until_pong(DOMAIN).await;
    alice.send_raw("<iq type='set' id='settled'><query xmlns='urn:xmpp:mam:2'/></iq>").await;
    assert_eq!(wrapper(&request(&mut component).await).attr("unsettled"), None);
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes() {
    let server = Deployment::new(&["alice", "bob"]).start();
    let mut alice = client(&server, "alice", "phone").await;
    let body = format!("<body>{}</body>", "x".repeat(60_000));
    for n in 0..20 {
        send(&mut alice, BOB, &format!("m{n}"), &body).await;
    }
    alice.everything_until_pong(DOMAIN).await;
    let mut component = component(&server).await;
    let mut taken = Vec::new();
    while taken.len() < 40 {
        let next = batch(&mut component).await.element;
        taken.extend(copies(&next).into_iter().map(|[owner, direction, id, _]| [owner, direction, id]));
        component.answer(&next, &format!("<copies xmlns='{PLUGIN}'/>")).await;
    }
    assert_eq!(taken, expected(20));
}

#[tokio::test]
async fn a_request_says_who_asks_and_how_that_one_stands_to_the_owner() {
    let server = Deployment::new(&["alice", "bob", "carol"]).start();
    let mut component = component(&server).await;
    let [mut alice, mut bob, mut carol] = [
        client(&server, "alice", "phone").await,
        client(&server, "bob", "phone").await,
        client(&server, "carol", "phone").await,
    ];
    befriend(&mut bob, &mut alice).await;
    let ask = |to: &str| format!("<iq type='get' id='q'{to}>{}</iq>", items(BUNDLES, &["1"]));
    let of_alice = format!(" to='{ALICE}'");
    for (client, to, relation) in
        [(&mut alice, "", "self"), (&mut bob, of_alice.as_str(), "contact"), (&mut carol, &of_alice, "other")]
    {
        client.send_raw(&ask(to)).await;
        let asked = request(&mut component).await;
        assert_eq!((wrapper(&asked).attr("owner"), wrapper(&asked).attr("relation")), (Some(ALICE), Some(relation)));
        let inner = wrapper(&asked).children().next().unwrap().children().next().unwrap();
        let jid = client.jid().to_owned();
        assert_eq!((inner.attr("from"), inner.attr("type")), (Some(jid.as_str()), Some("get")));
    }
}

#[tokio::test]
async fn nonsense_for_an_answer_is_an_error_and_no_wait() {
    let server = Deployment::new(&["alice"]).option("timeout", 60).start();
    let mut component = component(&server).await;
    let mut alice = client(&server, "alice", "phone").await;
    let in_wrapper = |inner: &str| {
        format!(
            "<delegation xmlns='{DELEGATION}'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></delegation>"
        )
    };
    let answers = [
        String::new(),
        "<query xmlns='urn:example:x'/>".to_owned(),
        format!("<delegation xmlns='{DELEGATION}'/>"),
        in_wrapper(""),
        in_wrapper("<message xmlns='jabber:client'/>"),
    ];
    for (n, nonsense) in answers.iter().map(Some).chain([None]).enumerate() {
        let id = format!("q{n}");
        alice.send_raw(&format!("<iq type='get' id='{id}'>{}</iq>", items(DEVICES, &[]))).await;
        let asked = request(&mut component).await;
        match nonsense {
            Some(nonsense) => component.answer(&asked, nonsense).await,
            None => component.refuse(&asked, "cancel", "not-allowed").await,
        }
        let told = alice.wait_for("an answer", |e| e.name() == "iq" && e.attr("id") == Some(&id)).await;
        let error = told.children().find(|e| e.name() == "error").unwrap();
        assert_eq!((told.attr("type"), error.attr("type")), (Some("error"), Some("wait")), "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_component_that_goes_away_with_a_request_costs_it_an_error_and_no_wait() {
    let server = Deployment::new(&["alice"]).option("timeout", 600).start();
    let mut component = component(&server).await;
    let mut alice = client(&server, "alice", "phone").await;
    alice
        .send_raw(&format!("<iq type='set' id='q'>{}</iq>", publish(DEVICES, "current", "<x xmlns='urn:example:x'/>")))
        .await;
    request(&mut component).await;
    drop(component);
    let told = alice.wait_for("an answer", |e| e.attr("id") == Some("q")).await;
    let error = told.children().find(|e| e.name() == "error").unwrap();
    assert_eq!(error.attr("type"), Some("wait"));
}

#[tokio::test]
async fn a_page_for_a_session_that_has_gone_is_given_to_no_other() {
    let server = Deployment::new(&["alice"]).start();
    let mut component = component(&server).await;
    let (mut phone, mut laptop) = (client(&server, "alice", "phone").await, client(&server, "alice", "laptop").await);
    laptop.enable_carbons().await;
    let page = |to: &str, id: &str| {
        format!(
            "<delegation xmlns='{DELEGATION}'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
             from='{ALICE}' to='{to}'><result xmlns='urn:xmpp:mam:2' queryid='{id}' id='1'><forwarded \
             xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' id='old' from='{BOB}/x' to='{ALICE}'>\
             <body>b</body></message></forwarded></result></message></forwarded><forwarded xmlns='urn:xmpp:forward:0'>\
             <iq xmlns='jabber:client' type='result' id='{id}' to='{to}'><fin xmlns='urn:xmpp:mam:2' complete='true'>\
             <set xmlns='http://jabber.org/protocol/rsm'/></fin></iq></forwarded></delegation>"
        )
    };
    // While it is there, it alone is given it.
    phone.send_raw("<iq type='set' id='q1'><query xmlns='urn:xmpp:mam:2' queryid='q1'/></iq>").await;
    let asked = request(&mut component).await;
    component.answer(&asked, &page(phone.jid(), "q1")).await;
    phone.wait_for("the page", |e| e.has_child("result", "urn:xmpp:mam:2")).await;
    phone.wait_for("its end", |e| e.attr("id") == Some("q1")).await;
    phone.send_raw("<iq type='set' id='q2'><query xmlns='urn:xmpp:mam:2' queryid='q2'/></iq>").await;
    let asked = request(&mut component).await;
    let gone = phone.jid().to_owned();
    phone.send_raw("</stream:stream>").await;
    laptop.wait_for("its end", |e| e.attr("type") == Some("unavailable") && e.attr("from") == Some(&gone)).await;
    component.answer(&asked, &page(&gone, "q2")).await;
    // The laptop's own question goes the same way, behind it.
    let own = async {
        let asked = request(&mut component).await;
        component.answer(&asked, &page("alice@example.org/laptop", "l1")).await;
    };
    laptop.send_raw("<iq type='set' id='l1'><query xmlns='urn:xmpp:mam:2' queryid='l1'/></iq>").await;
    own.await;
    laptop.wait_for("its answer", |e| e.name() == "iq" && e.attr("id") == Some("l1")).await;
    let results = laptop.everything_until_pong(DOMAIN).await;
    let pages: Vec<_> =
        results.iter().filter_map(|e| e.get_child("result", "urn:xmpp:mam:2")?.attr("queryid")).collect();
    assert_eq!(pages, ["l1"], "only its own");
}
