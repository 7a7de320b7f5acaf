//! Both servers with their stock modules for the delegation door, and multiend behind them.

use minidom::Element;

use crate::support::ejabberd::Ejabberd;
use crate::support::multiend::Multiend;
use crate::support::omemo::{TestDevice, publish};
use crate::support::plugin::Server;
use crate::support::process::poll;
use crate::support::prosody::Prosody;
use crate::support::xmpp::{Client, DEADLINE};
use crate::support::{COMPONENT, DOMAIN, SECRET};

pub const ALICE: &str = "alice@example.org";
pub const ALIAS_OF_ALICE: &str = r"alice\40example.org@multiend.example.org";
pub const ALIAS_OF_BOB: &str = r"bob\40example.org@multiend.example.org";
pub const MAM: &str = "urn:xmpp:mam:2";
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// Another domain of the same server, which delegates as well and is not served.
pub const ELSEWHERE: &str = "elsewhere.example";
/// In the configuration of multiend.
pub const ENABLED: &str = "[delegation]\nenabled = true\n";

/// Makes a test for each server out of a function that has the server as a parameter.
macro_rules! on_both_servers {
    ($($name:ident),+ $(,)?) => {
        mod prosody {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<crate::support::prosody::Prosody>().await;
            })+
        }
        mod ejabberd {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<crate::support::ejabberd::Ejabberd>().await;
            })+
        }
    };
}
pub(crate) use on_both_servers;

/// A server that delegates MAM with its stock modules.
pub trait Stock: Server {
    /// Starts it for users of [`DOMAIN`] and [`ELSEWHERE`], with or without the permission to send messages for them.
    fn delegating(users: &[&str], strangers: &[&str], messages: bool) -> Self;
}

impl Stock for Prosody {
    fn delegating(users: &[&str], strangers: &[&str], messages: bool) -> Self {
        let privileges = if messages { "message = \"outgoing\"" } else { "" };
        let options = format!(
            "delegations = {{ [\"{MAM}\"] = {{ jid = \"{COMPONENT}\" }} }}\n\
             privileged_entities = {{ [\"{COMPONENT}\"] = {{ {privileges} }} }}\n"
        );
        let modules = "modules_enabled = { \"delegation\", \"privilege\" }";
        let mut builder = Prosody::builder().users(users).module("delegation").module("privilege").host(&options);
        builder = strangers.iter().fold(builder, |builder, name| builder.stranger(name, ELSEWHERE));
        let mut server = builder.component(COMPONENT, SECRET, modules).start();
        if !strangers.is_empty() {
            let config = std::fs::read_to_string(server.config_path()).unwrap();
            let host = format!("VirtualHost \"{ELSEWHERE}\"\n");
            std::fs::write(server.config_path(), config.replace(&host, &format!("{host}{options}"))).unwrap();
            server.restart();
        }
        server
    }
}

impl Stock for Ejabberd {
    fn delegating(users: &[&str], strangers: &[&str], messages: bool) -> Self {
        let access = format!("{{allow: {{server: {COMPONENT}}}}}");
        let mut builder = Ejabberd::builder()
            .users(users)
            .module(&format!("  mod_delegation: {{namespaces: {{\"{MAM}\": {{access: {access}}}}}}}"));
        if messages {
            builder = builder.module(&format!("  mod_privilege: {{message: {{outgoing: {access}}}}}"));
        }
        builder = strangers.iter().fold(builder, |builder, name| builder.stranger(name, ELSEWHERE));
        builder.multiend().start()
    }
}

/// A server and multiend.
pub struct Setup<S> {
    pub server: S,
    pub multiend: Multiend,
}

impl<S: Stock> Setup<S> {
    /// As the document says, for `users`.
    pub fn start(users: &[&str]) -> Self {
        let setup = Self::of(S::delegating(users, &[], true), ENABLED);
        setup.is_granted();
        setup
    }

    /// With that server and these lines in the configuration of multiend.
    pub fn of(server: S, extra: &str) -> Self {
        let multiend = Multiend::builder(server.component_port()).extra(extra).start();
        Self { server, multiend }
    }

    /// Waits until the server has granted everything.
    pub fn is_granted(&self) {
        poll("the grants of the server", DEADLINE, || {
            let granted =
                |what: &str| self.multiend.metric(&format!("multiend_delegation_servers{{grant=\"{what}\"}}")) > 0.0;
            (granted("archives") && granted("messages")).then_some(())
        });
    }

    /// A session that is online.
    pub async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.server.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }

    /// The same of somebody who has used multiend before: others may write there.
    pub async fn known_client(&self, user: &str, resource: &str) -> Client {
        let mut client = self.client(user, resource).await;
        let alias = format!(r"{user}\40{DOMAIN}@{COMPONENT}");
        let bundle = TestDevice { id: 1, seed: 1 }.bundle(1..=3);
        let published = client.request("set", Some(&alias), &publish("urn:xmpp:omemo:2:bundles", "1", &bundle)).await;
        assert_eq!(published.attr("type"), Some("result"), "{published:?}");
        client
    }
}

/// Writes through an alias and waits until it is stored.
pub async fn send(client: &mut Client, to: &str, id: &str) {
    client
        .send_raw(&format!(
            "<message type='chat' to='{to}' id='{id}'><body>b {id}</body><request xmlns='urn:multiend:0'/></message>"
        ))
        .await;
    client.wait_for("the acknowledgement", |stanza| stanza.has_child("archived", "urn:multiend:0")).await;
}

/// A page of the own archive.
pub struct Page {
    /// The messages of the archive.
    pub messages: Vec<Element>,
    pub fin: Element,
}

impl Page {
    /// The stanza ids of the messages.
    pub fn ids(&self) -> Vec<&str> {
        self.messages.iter().map(|message| message.attr("id").unwrap_or_default()).collect()
    }

    pub fn complete(&self) -> bool {
        self.fin.attr("complete") == Some("true")
    }

    /// The id of the first or last message in the archive.
    pub fn end(&self, name: &str) -> String {
        let set = self.fin.get_child("set", RSM).unwrap();
        set.get_child(name, RSM).map(Element::text).unwrap_or_default()
    }
}

/// Asks the own archive as clients do, who believe only what comes from their own account, before the answer to the query.
/// The error is that of the query.
pub async fn query(client: &mut Client, to: Option<&str>, content: &str) -> Result<Page, Element> {
    let id = client.fresh_id();
    let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
    let xml = format!("<iq type='set' id='{id}'{to}><query xmlns='{MAM}' queryid='{id}'>{content}</query></iq>");
    let answer = client.iq(&xml, &id).await;
    let Some(fin) = answer.get_child("fin", MAM) else { return Err(answer) };
    let mut messages = Vec::new();
    let of_page = |e: &Element| e.get_child("result", MAM).is_some_and(|r| r.attr("queryid") == Some(id.as_str()));
    while let Some(stanza) = client.take(of_page) {
        assert_eq!(stanza.attr("from"), Some(client.bare()), "{stanza:?}");
        assert_eq!(stanza.attr("to"), Some(client.jid()));
        let forwarded = stanza.get_child("result", MAM).unwrap().children().next().unwrap();
        messages.push(forwarded.children().find(|child| child.name() == "message").unwrap().clone());
    }
    Ok(Page { messages, fin: fin.clone() })
}

pub fn rsm(content: &str) -> String {
    format!("<set xmlns='{RSM}'>{content}</set>")
}
