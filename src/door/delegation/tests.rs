//! The door with a database and a server that is played here.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::door::archive::Settled;
use crate::door::fixture;
use crate::link::LinkState;
use crate::model::{ArchiveId, ArchivedMessage, Class, Copy, Direction, Timestamp};
use crate::store::SharedStore;

const COMPONENT: &str = "multiend.example.org";
const DEADLINE: Duration = Duration::from_secs(20);
const QUERY: &str = "<query xmlns='urn:xmpp:mam:2' queryid='q'/>";

struct AllStored;

#[async_trait]
impl Settled for AllStored {
    async fn settled(&self) {}
}

struct World {
    door: DelegationDoor,
    outbox: Outbox,
    /// What the server receives.
    sent: mpsc::Receiver<Bytes>,
    link: watch::Sender<LinkState>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// A door for example.org, and three messages from bob in alice's archive.
async fn world(enabled: bool) -> World {
    let (store, dir) = fixture::store().await;
    fill(&store).await;
    let registry = Registry::new();
    let domain = |name: &str| DomainPart::new(name).unwrap().into_owned();
    let (link, state) = watch::channel(LinkState::Up);
    let stop = CancellationToken::new();
    let door = DelegationDoor::new(DelegationServices {
        enabled,
        servers: Servers::new([domain("example.org"), domain("example.net")]),
        aliases: Arc::new(Aliases::new(domain(COMPONENT), [domain("example.org"), domain("example.net")])),
        service: fixture::service(store, &registry, Box::new(AllStored)),
        grants: Grants::new(state),
        metrics: DelegationMetrics::register(&registry).unwrap(),
        stop: stop.clone(),
    });
    let (outbox, sent) = Outbox::detached(64);
    World { door, outbox, sent, link, stop, _dir: dir }
}

async fn fill(store: &SharedStore) {
    let messages: Vec<_> = (0..3)
        .map(|n| ArchivedMessage {
            class: Class::Plain,
            at: Timestamp::from_micros(1_780_000_000_000_000 + n),
            body: Bytes::from(format!("<message type='chat' id='m{n}'><body>b</body></message>")),
            origin: None,
            retracts: None,
            copies: vec![Copy {
                owner: Owner::parse("alice@example.org").unwrap(),
                archive_id: ArchiveId::parse(&format!("id-{n}")).unwrap(),
                direction: Direction::Received,
                peer: Jid::new("bob@example.org/laptop").unwrap(),
                own_resource: None,
                expires_at: None,
            }],
            key_exchanges: Vec::new(),
        })
        .collect();
    store.append(&messages).await.unwrap();
}

/// What a server hands over: a request `from` somebody, with more attributes.
fn wrapped(server: &str, ns: &str, from: &str, attributes: &str, payload: &str) -> String {
    format!(
        "<iq type='set' id='d1' from='{server}' to='{COMPONENT}'><delegation xmlns='{ns}'>\
         <forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='set' id='q1' from='{from}'{attributes}>\
         {payload}</iq></forwarded></delegation></iq>"
    )
}

fn alices(payload: &str) -> String {
    wrapped("example.org", "urn:xmpp:delegation:2", "alice@example.org/phone", "", payload)
}

fn granting(server: &str, version: u8) -> String {
    format!(
        "<message from='{server}' to='{COMPONENT}'><privilege xmlns='urn:xmpp:privilege:{version}'>\
         <perm access='message' type='outgoing'/></privilege></message>"
    )
}

impl World {
    fn hear(&self, message: &str) -> Option<Result<(), StanzaError>> {
        self.door.hear(&Incoming::parse(message.as_bytes()).unwrap())
    }

    /// The answer to the server.
    async fn ask(&self, iq: &str) -> String {
        let incoming = Incoming::parse(iq.as_bytes()).unwrap();
        self.door.recognise(&incoming).unwrap().unwrap();
        let mut answers = self.door.answer(&incoming, &self.outbox).await;
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// The condition of the error in the wrapper; `None` for a result in it. Anything else is a failure.
    async fn inner_error(&self, iq: &str) -> Option<String> {
        let answer = self.ask(iq).await;
        let answer = Element::parse(answer.as_bytes()).unwrap();
        assert_eq!(answer.attribute("type"), Some("result"), "an error of ours would not reach the client");
        let iq = &answer.children()[0].children()[0].children()[0];
        assert_eq!(iq.attribute("id"), Some("q1"));
        (iq.attribute("type") == Some("error")).then(|| iq.children()[0].children()[0].name().to_owned())
    }

    /// Plays the server while a query is under way: takes what comes up to the ping, and says something about it.
    async fn query(&mut self, said: impl Fn(&str) -> Vec<String>) -> (Vec<String>, Option<String>) {
        let mut sent = std::mem::replace(&mut self.sent, mpsc::channel(1).1);
        let server = async {
            let mut messages = Vec::new();
            loop {
                let stanza = tokio::time::timeout(DEADLINE, sent.recv()).await.unwrap().unwrap();
                let stanza = String::from_utf8(stanza.to_vec()).unwrap();
                let element = Element::parse(stanza.as_bytes()).unwrap();
                let id = element.attribute("id").unwrap();
                if element.name() == "iq" {
                    for said in said(id) {
                        let incoming = Incoming::parse(said.as_bytes()).unwrap();
                        match incoming.kind {
                            Kind::IqReply => self.door.answered(&incoming),
                            _ => drop(self.door.hear(&incoming)),
                        }
                    }
                    return messages;
                }
                messages.push(stanza);
            }
        };
        let request = alices(QUERY);
        let (messages, error) = tokio::join!(server, self.inner_error(&request));
        self.sent = sent;
        (messages, error)
    }
}

fn pong(id: &str) -> String {
    format!("<iq type='result' id='{id}' from='example.org' to='{COMPONENT}'/>")
}

fn bounce(id: &str, from: &str) -> String {
    format!(
        "<message type='error' id='{id}' from='{from}' to='{COMPONENT}'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
}

#[tokio::test]
async fn a_page_comes_in_the_name_of_its_account_and_ends_when_the_server_took_it() {
    for version in [1, 2] {
        let mut world = world(true).await;
        assert_eq!(world.hear(&granting("example.org", version)), Some(Ok(())));
        let (messages, error) = world.query(|id| vec![pong(id)]).await;
        assert_eq!((messages.len(), error), (3, None));
        for message in &messages {
            let element = Element::parse(message.as_bytes()).unwrap();
            let privilege = element.child("privilege", &format!("urn:xmpp:privilege:{version}")).unwrap();
            let inner = &privilege.children()[0].children()[0];
            assert_eq!(inner.attribute("from"), Some("alice@example.org"));
            assert_eq!(inner.attribute("to"), Some("alice@example.org/phone"));
            assert!(message.contains(r"from='bob\40example.org@multiend.example.org/laptop'"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_page_that_the_server_does_not_let_through_is_never_ended() {
    let mut world = world(true).await;
    assert_eq!(world.inner_error(&alices(QUERY)).await.as_deref(), Some("service-unavailable"), "nothing is granted");
    world.hear(&granting("example.org", 2));
    let (_, error) = world.query(|id| vec![bounce(id, "mallory@example.org/x"), pong(id)]).await;
    assert_eq!(error, None, "nobody but the server has a say in it");
    let (_, error) = world.query(|id| vec![bounce(id, "example.org"), pong(id)]).await;
    assert_eq!(error.as_deref(), Some("service-unavailable"));
    let again = world.inner_error(&alices(QUERY)).await;
    assert_eq!(again.as_deref(), Some("service-unavailable"), "without trying again: it is not granted any more");
    assert!(world.sent.try_recv().is_err());
    assert_eq!(world.inner_error(&alices("<prefs xmlns='urn:xmpp:mam:2' default='always'/>")).await, None);

    // Another connection, another grant.
    world.hear(&granting("example.org", 1));
    assert_eq!(world.query(|id| vec![pong(id)]).await.1, None);
    world.link.send_replace(LinkState::Up);
    assert_eq!(world.inner_error(&alices(QUERY)).await.as_deref(), Some("service-unavailable"));

    // While we shut down, nobody waits for a server that is not listened to any more.
    world.hear(&granting("example.org", 1));
    world.stop.cancel();
    assert_eq!(world.query(|_| Vec::new()).await.1.as_deref(), Some("resource-constraint"));
}

#[tokio::test]
async fn an_archive_answers_its_owner_only_and_everybody_gets_an_answer() {
    let world = world(true).await;
    world.hear(&granting("example.org", 2));
    world.hear(&granting("example.net", 2));
    let prefs = "<prefs xmlns='urn:xmpp:mam:2' default='always'/>";
    let error = async |server: &str, from: &str, to: &str, payload: &str| {
        let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
        world.inner_error(&wrapped(server, "urn:xmpp:delegation:1", from, &to, payload)).await
    };
    let (org, alice) = ("example.org", "alice@example.org/x");
    assert_eq!(error(org, alice, "", prefs).await, None);
    assert_eq!(error(org, alice, "Alice@Example.ORG", prefs).await, None);
    for (server, from, to, payload, condition) in [
        (org, "bob@example.org/x", "alice@example.org", prefs, "forbidden"),
        (org, "bob@example.org/x", "alice@example.org", QUERY, "forbidden"),
        (org, "bob@example.org/x", "nobody@example.org", QUERY, "forbidden"),
        (org, "eve@evil.example/x", "alice@example.org", QUERY, "forbidden"),
        (org, "eve@evil.example/x", "", QUERY, "forbidden"),
        (org, alice, "example.org", QUERY, "service-unavailable"),
        (org, alice, "alice@example.org/y", QUERY, "service-unavailable"),
        (org, alice, "@", QUERY, "bad-request"),
        // A server speaks for its own accounts, even if we serve the other's as well.
        (org, "carol@example.net/x", "", prefs, "forbidden"),
        ("evil.example", alice, "", prefs, "forbidden"),
        ("evil.example", "eve@evil.example/x", "", prefs, "forbidden"),
        (org, alice, "", "<ping xmlns='urn:xmpp:ping'/>", "service-unavailable"),
        (org, alice, "", "<nonsense xmlns='urn:xmpp:mam:2'/>", "feature-not-implemented"),
        (org, alice, "", "<prefs xmlns='urn:xmpp:mam:2' default='sometimes'/>", "bad-request"),
        (org, alice, "", "", "bad-request"),
        (org, alice, "", "<a xmlns='x'/><b xmlns='x'/>", "bad-request"),
    ] {
        assert_eq!(
            error(server, from, to, payload).await.as_deref(),
            Some(condition),
            "{server} {from} {to} {payload}"
        );
    }
}

#[tokio::test]
async fn only_a_server_speaks_to_this_door() {
    let world = world(true).await;
    let forbidden = |result: Option<Result<BareJid, StanzaError>>| result.unwrap().unwrap_err().condition;
    let node =
        "<query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:1:bare:urn:xmpp:mam:2'/>";
    for from in ["alice@example.org/phone", "alice@example.org", "example.org/x"] {
        for text in [
            wrapped(from, "urn:xmpp:delegation:1", from, "", QUERY),
            wrapped(from, "urn:xmpp:delegation:2", "alice@example.org/phone", "", QUERY),
            format!("<iq type='get' id='d' from='{from}' to='{COMPONENT}'>{node}</iq>"),
        ] {
            let result = world.door.recognise(&Incoming::parse(text.as_bytes()).unwrap());
            assert_eq!(forbidden(result), Condition::Forbidden, "{text}");
        }
        let heard = world.hear(&granting(from, 2)).unwrap();
        assert_eq!(heard.unwrap_err().condition, Condition::Forbidden);
    }
    // Nor at the address of somebody.
    let to_alias =
        alices(QUERY).replace(&format!("to='{COMPONENT}'"), r"to='alice\40example.org@multiend.example.org'");
    assert_eq!(forbidden(world.door.recognise(&Incoming::parse(to_alias.as_bytes()).unwrap())), Condition::Forbidden);
    // Another server may say what it wants: it is nothing to us.
    assert_eq!(world.hear(&granting("evil.example", 2)), Some(Ok(())));
    assert_eq!(world.door.services.grants.messages_granted(), 0);
    // What has nothing to do with this door is left to the others, a plugin's wrapper too.
    for text in [
        "<iq type='get' id='d' from='example.org' to='multiend.example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>".to_owned(),
        alices(QUERY).replace("<delegation ", "<delegation owner='alice@example.org' relation='self' "),
    ] {
        assert!(world.door.recognise(&Incoming::parse(text.as_bytes()).unwrap()).is_none());
    }
    let ordinary = format!("<message from='alice@example.org/x' to='{COMPONENT}'><body>b</body></message>");
    assert!(world.hear(&ordinary).is_none() && world.hear(&bounce("m1", "example.org")).is_none());
}

#[tokio::test]
async fn the_server_learns_what_its_accounts_have_here_if_the_operator_wants_it() {
    for (enabled, namespace) in
        [(true, "urn:xmpp:delegation:1"), (true, "urn:xmpp:delegation:2"), (false, "urn:xmpp:delegation:1")]
    {
        let world = world(enabled).await;
        let info = async |separator: &str, about: &str| {
            let iq = format!(
                "<iq type='get' id='d' from='example.org' to='{COMPONENT}'>\
                 <query xmlns='http://jabber.org/protocol/disco#info' node='{namespace}{separator}{about}'/></iq>"
            );
            let answer = world.ask(&iq).await;
            let answer = Element::parse(answer.as_bytes()).unwrap();
            let name = |feature: &Element<'_>| feature.attribute("var").unwrap().to_owned();
            answer.child("query", DISCO_INFO).map(|query| query.children().iter().map(name).collect::<Vec<_>>())
        };
        let accounts = info(":bare:", MAM).await;
        if !enabled {
            assert_eq!(accounts, None);
            let told = format!(
                "<message from='example.org' to='{COMPONENT}'><delegation xmlns='{namespace}'><delegated namespace='{MAM}'/></delegation></message>"
            );
            assert_eq!(world.hear(&told), Some(Ok(())));
            assert_eq!(world.inner_error(&alices(QUERY)).await.as_deref(), Some("service-unavailable"));
            continue;
        }
        let accounts = accounts.unwrap();
        assert!(
            accounts.iter().any(|feature| feature == MAM)
                && accounts.iter().any(|feature| feature == "urn:xmpp:mam:2#extended")
        );
        assert!(!accounts.iter().any(|feature| feature == STANZA_ID), "nobody stamps ids of the account");
        assert_eq!(info("::", MAM).await, Some(vec![]));
        assert_eq!(info(":bare:", "urn:xmpp:ping").await, None);
    }
}

#[tokio::test]
async fn what_a_server_delegates_is_counted_until_the_connection_ends() {
    let world = world(true).await;
    let told = |ns: &str| {
        format!(
            "<message from='example.org' to='{COMPONENT}'><delegation xmlns='urn:xmpp:delegation:1'>\
             <delegated namespace='{ns}'/></delegation></message>"
        )
    };
    assert_eq!(world.hear(&told("urn:x")), Some(Ok(())));
    assert_eq!(world.door.services.grants.archives_granted(), 0);
    assert_eq!(world.hear(&told(MAM)), Some(Ok(())));
    assert_eq!(world.door.services.grants.archives_granted(), 1);
    world.link.send_replace(LinkState::Connecting);
    assert_eq!(world.door.services.grants.archives_granted(), 0);
}

#[tokio::test]
async fn an_answer_that_fits_into_no_stanza_is_an_error_in_the_wrapper() {
    let world = world(true).await;
    let jids: String =
        (0..900).map(|n| format!("<jid>{}{n}@{}.example</jid>", "a".repeat(900), "b".repeat(60))).collect();
    let prefs = format!("<prefs xmlns='urn:xmpp:mam:2' default='always'><never>{jids}</never></prefs>");
    let answer = world.inner_error(&alices(&prefs)).await;
    assert_eq!(answer.as_deref(), Some("not-acceptable"));
}

#[tokio::test]
async fn a_refusal_for_want_of_room_reaches_the_client_too() {
    let world = world(true).await;
    let error = StanzaError::new(Condition::ResourceConstraint, "wait");
    let refused = |text: &str| world.door.refuse(&Incoming::parse(text.as_bytes()).unwrap(), &error);
    let wrapped = refused(&alices(QUERY));
    let answer = Element::parse(wrapped.as_bytes()).unwrap();
    assert_eq!(answer.attribute("type"), Some("result"));
    assert!(wrapped.contains("id='q1' type='error'><error "), "{wrapped}");
    let other =
        format!("<iq type='get' id='o' from='alice@example.org/x' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>");
    let answer = refused(&other);
    assert_eq!(Element::parse(answer.as_bytes()).unwrap().attribute("type"), Some("error"));
}
