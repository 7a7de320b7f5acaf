//! What moving archives is tried with, whatever server they come from: a conversation, and how its two sides see it.

pub mod export_file;

use std::path::Path;

use crate::support::DOMAIN;
use crate::support::archive::everything;
use crate::support::multiend::Multiend;
use crate::support::process::poll_async;
use crate::support::xmpp::{Client, DEADLINE};

const OMEMO: &str = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>QUFB</key>\
                     <iv>AAAA</iv></header><payload>UGF5bG9hZA==</payload></encrypted><store xmlns='urn:xmpp:hints'/>";

/// A message of an archive: its archive id, its stanza id, and its content without what a server adds on the way.
pub type Archived = (String, String, String);

/// What an account finds in its archive; the server takes clients at `port`.
pub async fn archive(port: u16, user: &str) -> Vec<Archived> {
    let mut client = Client::connect(port, DOMAIN, user, "reader").await;
    let all = everything(&mut client).await.unwrap();
    let text = |message: &minidom::Element| {
        let content = message.children().filter(|c| !["stanza-id", "archived"].contains(&c.name()));
        content.map(|c| format!("{} {}", c.name(), c.text())).collect()
    };
    all.iter()
        .map(|(id, message)| (id.clone(), message.attr("id").unwrap_or_default().to_owned(), text(message)))
        .collect()
}

/// The archive as soon as it ends with the message that has this stanza id.
pub async fn archive_until(port: u16, user: &str, last: &str) -> Vec<Archived> {
    poll_async("the archive", DEADLINE, async || {
        let all = archive(port, user).await;
        all.last().is_some_and(|(_, id, _)| id == last).then_some(all)
    })
    .await
}

/// Waits until archives can be asked.
pub async fn answers(port: u16) {
    poll_async("the archive", DEADLINE, async || {
        let mut client = Client::connect(port, DOMAIN, "alice", "reader").await;
        everything(&mut client).await.ok()
    })
    .await;
}

/// Alice and bob write to each other in turn, encrypted and in clear.
pub async fn exchange(port: u16, name: &str, count: usize) {
    let mut alice = Client::connect(port, DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(port, DOMAIN, "bob", "phone").await;
    alice.online().await;
    bob.online().await;
    for number in 0..count {
        let (writer, to) = if number % 2 == 0 { (&mut alice, "bob") } else { (&mut bob, "alice") };
        let content = match number % 3 {
            0 => OMEMO.to_owned(),
            1 => format!("<body>in clear {number} &lt;&amp; äöü</body>"),
            _ => format!("<body>over\n  two lines\r {number}</body>"),
        };
        let id = format!("{name}{number}");
        writer.send_raw(&format!("<message type='chat' id='{id}' to='{to}@{DOMAIN}'>{content}</message>")).await;
        let reader = if number % 2 == 0 { &mut bob } else { &mut alice };
        reader.wait_for(&id, |e| e.name() == "message" && e.attr("id") == Some(&id)).await;
    }
}

/// What an account wants archived: the default, and for whom it is always and never.
pub type Preferences = (String, Vec<String>, Vec<String>);

/// Preferences as a test writes them.
pub fn wants(default: &str, always: &[&str], never: &[&str]) -> Preferences {
    let texts = |jids: &[&str]| jids.iter().map(ToString::to_string).collect();
    (default.to_owned(), texts(always), texts(never))
}

/// Asks for an account's preferences, or sets them: those that are then in force.
pub async fn preferences(port: u16, user: &str, set: Option<&Preferences>) -> Preferences {
    const NS: &str = "urn:xmpp:mam:2";
    let mut client = Client::connect(port, DOMAIN, user, "reader").await;
    if let Some((default, always, never)) = set {
        let list = |jids: &[String]| jids.iter().map(|jid| format!("<jid>{jid}</jid>")).collect::<String>();
        let (always, never) = (list(always), list(never));
        let prefs =
            format!("<prefs xmlns='{NS}' default='{default}'><always>{always}</always><never>{never}</never></prefs>");
        let reply = client.request("set", None, &prefs).await;
        assert_eq!(reply.attr("type"), Some("result"), "{reply:?}");
    }
    let reply = client.request("get", None, &format!("<prefs xmlns='{NS}'/>")).await;
    let prefs = reply.get_child("prefs", NS).unwrap();
    let list = |name| {
        let jids = prefs.get_child(name, NS).into_iter().flat_map(minidom::Element::children);
        let mut jids: Vec<String> = jids.map(minidom::Element::text).collect();
        jids.sort();
        jids
    };
    (prefs.attr("default").unwrap().to_owned(), list("always"), list("never"))
}

/// Takes words of a server's configuration out and puts others in.
pub fn reconfigure(config: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(config, text.replace(from, to)).unwrap();
}

/// `multiend admin import` of these files: its report.
pub fn imported(multiend: &Multiend, files: &[&Path]) -> serde_json::Value {
    let mut args = vec!["admin", "import", "--json"];
    args.extend(files.iter().map(|file| file.to_str().unwrap()));
    let (status, report, errors) = multiend.command(&args);
    assert!(status.success(), "{errors}");
    serde_json::from_str(&report).unwrap()
}

/// `multiend admin export` of an account, into a file of this directory.
pub fn exported(multiend: &Multiend, user: &str, directory: &Path) -> std::path::PathBuf {
    let (status, export, errors) = multiend.command(&["admin", "export", &format!("{user}@{DOMAIN}")]);
    assert!(status.success(), "{errors}");
    assert!(export.contains("<archive"));
    let file = directory.join(format!("{user}.xml"));
    std::fs::write(&file, export).unwrap();
    file
}
