//! Whether the server is still there: XEP-0199 pings into silence.

use std::time::Duration;

use bytes::Bytes;
use jid::DomainRef;
use quick_xml::escape::escape;
use tokio::time::Instant;

use super::stanza_head::StanzaHead;

/// When to ask a silent server for a sign of life, and how long to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence from the server after which it is pinged. Any byte from it ends the silence.
    pub interval: Duration,
    /// Further silence after the ping after which the connection counts as dead.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) }
    }
}

/// What is to be done about a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Not long enough to matter.
    Short,
    /// Time for a ping.
    Ping,
    /// Nothing came after the ping either.
    Dead,
}

/// Measures the server's silence. It counts only while we listen: whoever does not read cannot blame the other for it.
#[derive(Debug)]
pub(super) struct Pulse {
    keepalive: Keepalive,
    heard: Instant,
    pinged: Option<Instant>,
}

impl Pulse {
    pub fn new(keepalive: Keepalive, now: Instant) -> Self {
        Self { keepalive, heard: now, pinged: None }
    }

    /// Something came, or we begin to listen again.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// When to look again.
    pub fn deadline(&self) -> Instant {
        let (from, after) = match self.pinged {
            None => (self.heard, self.keepalive.interval),
            Some(pinged) => (pinged, self.keepalive.timeout),
        };
        from.checked_add(after).unwrap_or(from)
    }

    /// What the silence asks for now. A ping counts as sent.
    pub fn look(&mut self, now: Instant) -> Silence {
        if now < self.deadline() {
            return Silence::Short;
        }
        match self.pinged.replace(now) {
            None => Silence::Ping,
            Some(_) => Silence::Dead,
        }
    }
}

/// Our pings, told apart from everybody else's stanzas by an id that nobody can guess.
#[derive(Debug)]
pub(super) struct Pings {
    id: String,
    unanswered: u32,
}

impl Pings {
    pub fn new() -> Self {
        let random = getrandom::u64().unwrap_or_default();
        Self { id: format!("link-ping-{random:016x}"), unanswered: 0 }
    }

    /// A ping from the component to its server.
    pub fn ping(&mut self, component: &DomainRef, server: &DomainRef) -> Bytes {
        self.unanswered = self.unanswered.saturating_add(1);
        Bytes::from(format!(
            "<iq type='get' id='{}' from='{}' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>",
            self.id,
            escape(component.as_str()),
            escape(server.as_str())
        ))
    }

    /// Whether this IQ answers one of our pings; an error is an answer as good as any.
    pub fn is_answer(&mut self, iq: &[u8], server: &DomainRef) -> bool {
        if self.unanswered == 0 || memchr::memmem::find(iq, self.id.as_bytes()).is_none() {
            return false;
        }
        let head = StanzaHead::read(iq);
        let ours = head.id.as_deref() == Some(self.id.as_str())
            && head.from.as_deref() == Some(server.as_str())
            && matches!(head.stanza_type.as_deref(), Some("result" | "error"));
        if ours {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_to_one_ping_and_then_to_death() {
        let keepalive = Keepalive { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(keepalive, start);
        assert_eq!(pulse.look(at(29)), Silence::Short);
        assert_eq!(pulse.look(at(30)), Silence::Ping);
        assert_eq!(pulse.look(at(39)), Silence::Short);
        pulse.heard(at(39));
        assert_eq!(pulse.look(at(68)), Silence::Short);
        assert_eq!(pulse.look(at(69)), Silence::Ping);
        assert_eq!(pulse.look(at(79)), Silence::Dead);
    }

    #[test]
    fn only_the_server_can_answer_a_ping() {
        let (component, server) =
            (jid::DomainPart::new("m.example").unwrap(), jid::DomainPart::new("example").unwrap());
        let mut pings = Pings::new();
        let answer = format!("<iq type='result' from='example' id='{}'/>", pings.id);
        assert!(!pings.is_answer(answer.as_bytes(), &server), "nothing was asked");
        pings.ping(&component, &server);
        assert!(!pings.is_answer(answer.replace("'example'", "'a@example'").as_bytes(), &server));
        assert!(!pings.is_answer(answer.replace("result", "get").as_bytes(), &server));
        assert!(pings.is_answer(answer.as_bytes(), &server));
        assert!(!pings.is_answer(answer.as_bytes(), &server), "answered already");
    }
}
