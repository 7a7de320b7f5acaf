//! One accepted stream, from the handshake to its end.
//!
//! A single loop reads, writes, hands up and keeps time; every wait in it can be abandoned at any moment without losing
//! anything, so none of the four ever holds up the others.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, sleep_until, timeout};

use super::RawStanza;
use super::config::LinkConfig;
use super::connect::Stream;
use super::drain::Drain;
use super::error_reply::error_reply;
use super::framer::{Event, Framer, RawElement, Refusal};
use super::keepalive::{Pings, Pulse, Silence};
use super::limits::RefusalReason;
use super::metrics::LinkMetrics;
use super::outbox::Queue;
use super::stanza_head::{StanzaHead, StanzaKind};
use super::state::DownReason;
use super::stream_error::StreamError;

/// Read at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long the server may take to close its side after we have closed ours.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// What a session works with.
pub(super) struct Session<'a> {
    config: &'a LinkConfig,
    metrics: &'a LinkMetrics,
    drain: &'a mut Drain,
    /// `None` once no more is taken in.
    inbound: &'a mut Option<mpsc::Sender<RawStanza>>,
    queue: &'a mut Queue,
    framer: Framer,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    /// A stanza for which the inbound channel had no room. Nothing is read while there is one.
    waiting: Option<RawStanza>,
    pulse: Pulse,
    pings: Pings,
}

impl<'a> Session<'a> {
    pub fn new(
        config: &'a LinkConfig,
        metrics: &'a LinkMetrics,
        drain: &'a mut Drain,
        inbound: &'a mut Option<mpsc::Sender<RawStanza>>,
        queue: &'a mut Queue,
        stream: Stream,
    ) -> Self {
        let (read, write) = stream.socket.into_split();
        queue.begin_again();
        Self {
            config,
            metrics,
            drain,
            inbound,
            queue,
            framer: stream.framer,
            read,
            write,
            waiting: None,
            pulse: Pulse::new(config.keepalive, Instant::now()),
            pings: Pings::new(),
        }
    }

    /// Runs until the stream has ended, and says why.
    pub async fn run(mut self) -> DownReason {
        let Err(reason) = self.exchange().await;
        self.close(&reason).await;
        reason
    }

    async fn exchange(&mut self) -> Result<Infallible, DownReason> {
        let mut chunk = vec![0_u8; CHUNK_BYTES];
        loop {
            self.hand_up()?;
            if self.drain.is_over(self.queue) {
                return Err(DownReason::ShutDown);
            }
            let listening = self.waiting.is_none();
            let reading = listening && !self.queue.is_congested();
            tokio::select! {
                () = self.drain.next_step() => self.on_drain(),
                count = self.read.read(&mut chunk), if reading => self.on_read(count, &chunk)?,
                count = self.queue.progress(&mut self.write) => self.on_written(count)?,
                taken = give(self.inbound.as_ref(), &mut self.waiting), if !listening => {
                    if !taken && !self.drain.is_wanted() {
                        return Err(DownReason::Abandoned);
                    }
                    // From here on we listen again.
                    self.pulse.heard(Instant::now());
                }
                () = sleep_until(self.pulse.deadline()), if listening => self.on_silence(&mut chunk)?,
            }
        }
    }

    /// Hands up what the framer has, as far as there is room.
    fn hand_up(&mut self) -> Result<(), DownReason> {
        while self.waiting.is_none() && !self.queue.is_congested() {
            match self.framer.next_event()? {
                None => break,
                Some(Event::Element(element)) => self.on_element(element)?,
                Some(Event::Refused(refusal)) => self.refuse(&refusal),
                Some(Event::StreamElement(element)) => {
                    if let Some(error) = StreamError::read(&element.bytes) {
                        return Err(DownReason::of_stream_error(error, true));
                    }
                }
                Some(Event::Close) => return Err(DownReason::ClosedByServer),
                Some(Event::Open(_)) => {}
            }
        }
        Ok(())
    }

    fn on_element(&mut self, element: RawElement) -> Result<(), DownReason> {
        let Some(kind) = element.kind else {
            self.refuse(&Refusal { reason: RefusalReason::NotAStanza, head: StanzaHead::default() });
            return Ok(());
        };
        if kind == StanzaKind::Iq && self.pings.is_answer(&element.bytes, &self.config.server_domain) {
            return Ok(());
        }
        let stanza = RawStanza { bytes: element.bytes, kind };
        let Some(inbound) = self.inbound.as_ref() else {
            self.refuse_late(&stanza);
            return Ok(());
        };
        match inbound.try_send(stanza) {
            Ok(()) => {}
            Err(TrySendError::Full(stanza)) => self.waiting = Some(stanza),
            // Whoever ends with the same shutdown signal may be faster than we are.
            Err(TrySendError::Closed(stanza)) if self.drain.is_wanted() => {
                *self.inbound = None;
                self.refuse_late(&stanza);
                return Ok(());
            }
            Err(TrySendError::Closed(_)) => return Err(DownReason::Abandoned),
        }
        self.metrics.received(kind);
        Ok(())
    }

    fn refuse_late(&mut self, stanza: &RawStanza) {
        self.refuse(&Refusal { reason: RefusalReason::ShuttingDown, head: StanzaHead::read(&stanza.bytes) });
    }

    /// Counts a refused stanza, and tells its sender.
    fn refuse(&mut self, refusal: &Refusal) {
        self.metrics.refused(refusal.reason);
        let kind = refusal.head.kind.map_or("other", StanzaKind::name);
        tracing::debug!(reason = refusal.reason.label(), kind, "refused a stanza");
        if let Some(reply) = error_reply(refusal, &self.config.limits, &self.config.component) {
            self.queue.push(reply);
        }
    }

    fn on_drain(&mut self) {
        *self.inbound = None;
        if let Some(stanza) = self.waiting.take() {
            self.refuse_late(&stanza);
            self.pulse.heard(Instant::now());
        }
    }

    fn on_read(&mut self, count: io::Result<usize>, chunk: &[u8]) -> Result<(), DownReason> {
        match count {
            Ok(0) => Err(DownReason::ClosedByServer),
            Ok(count) => {
                self.metrics.read(count);
                self.pulse.heard(Instant::now());
                self.framer.feed(chunk.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) => Err(DownReason::of_io(&error)),
        }
    }

    fn on_written(&mut self, count: io::Result<usize>) -> Result<(), DownReason> {
        let count = count.map_err(|error| DownReason::of_io(&error))?;
        self.metrics.wrote(count);
        self.queue.wrote(count, |stanza| self.metrics.sent(stanza));
        Ok(())
    }

    fn on_silence(&mut self, chunk: &mut [u8]) -> Result<(), DownReason> {
        match self.pulse.look(Instant::now()) {
            Silence::Short => Ok(()),
            Silence::Ping => {
                let ping = self.pings.ping(&self.config.component, &self.config.server_domain);
                self.queue.push(ping);
                Ok(())
            }
            Silence::Dead if self.queue.is_congested() => Err(DownReason::Silent),
            // If it was us who slept, the server's answer lies there unread.
            Silence::Dead => match self.read.try_read(chunk) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(DownReason::Silent),
                count => self.on_read(count, chunk),
            },
        }
    }

    /// Ends the stream as far as there still is one (RFC 6120 §4.4).
    async fn close(&mut self, reason: &DownReason) {
        if matches!(reason, DownReason::Broken(_) | DownReason::Silent) || self.queue.is_inside_stanza() {
            return;
        }
        let mut farewell = String::new();
        if let DownReason::Fault(fault) = reason {
            let condition = fault.condition();
            farewell =
                format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
        }
        farewell.push_str("</stream:stream>");
        let goodbye = async {
            self.write.write_all(farewell.as_bytes()).await?;
            // Closing a socket that has unread bytes resets the connection, and the server would lose our last words.
            let mut rest = vec![0_u8; CHUNK_BYTES];
            while *reason == DownReason::ShutDown && self.read.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        if !matches!(timeout(CLOSING_TIME, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("the stream could not be closed in good order");
        }
    }
}

/// Hands up the waiting stanza as soon as there is room; `false` if nobody takes any more. May be abandoned at any time.
async fn give(inbound: Option<&mpsc::Sender<RawStanza>>, waiting: &mut Option<RawStanza>) -> bool {
    let Some(inbound) = inbound else { return false };
    let Ok(permit) = inbound.reserve().await else { return false };
    if let Some(stanza) = waiting.take() {
        permit.send(stanza);
    }
    true
}
