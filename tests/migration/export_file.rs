//! Files as `multiend admin export` writes them (XEP-0227), as a test wants them.

use crate::support::DOMAIN;

/// A result as `multiend admin export` writes it.
pub fn result(id: &str, stamp: &str, message: &str, content: &str) -> String {
    format!(
        "<result xmlns='urn:xmpp:mam:2' id='{id}'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' \
         stamp='{stamp}'/><message xmlns='jabber:client' type='chat' id='{message}' from='bob@{DOMAIN}/phone' \
         to='alice@{DOMAIN}'>{content}</message></forwarded></result>\n"
    )
}

/// A file around what is kept for accounts of the domain.
pub fn server_data(inside: &str) -> String {
    format!(
        "<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='urn:xmpp:pie:0'>\n<host jid='{DOMAIN}'>\n\
         {inside}</host>\n</server-data>\n"
    )
}

/// An account with its archive, and what stands before that.
pub fn of_user(name: &str, before: &str, results: &str) -> String {
    format!("<user name='{name}'>\n{before}<archive xmlns='urn:xmpp:pie:0#mam'>\n{results}</archive>\n</user>\n")
}

/// An archive of alice's with two messages, `first` and `outer`. What she has published stands before it, and looks like an
/// archive and preferences of bob's.
pub fn deceptive() -> String {
    let one = |id: &str| result(id, "2026-01-31T12:00:00Z", id, "<body>b</body>");
    let forged = of_user("bob", "<prefs xmlns='urn:xmpp:mam:2' default='never'/>\n", &one("forged"));
    let published = format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item><x a='>' xmlns='urn:xmpp:pie:0'>\n{forged}</x>\n\
         {forged}</item></items></pubsub>\n<!-- </user>{forged} --><y><![CDATA[</y></user>{forged}]]></y>\n"
    );
    let content = format!("<body>c</body>\n{}<x xmlns='y'/>", one("nested"));
    let outer = result("outer", "2026-01-31T12:00:01Z", "outer", &content);
    server_data(&of_user("alice", &published, &(one("first") + &outer)))
}
