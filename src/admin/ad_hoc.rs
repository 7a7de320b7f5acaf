//! The commands of `multiend admin` from an administrator's XMPP client: ad-hoc commands (XEP-0050) with data forms
//! (XEP-0004), at the component's own address, for the accounts that `admin.jids` names and for nobody else.
//!
//! Who asks is told by the server, which stamps the address of its own users; `admin.jids` takes no others. Each command
//! that changes something is logged with who gave it. What takes long stops after [`PATIENCE`], says so, and goes on when
//! it is given again: a client does not wait for ever.

mod commands;
mod result_form;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jid::{BareJid, DomainPart};

use self::commands::{Command, Failure, Given};
use super::long_work::Progress;
use crate::door::commands::Commands;
use crate::model::{Clock, Setting};
use crate::stanza::ad_hoc::{self, Action, NS, Request};
use crate::stanza::disco::{self, Subject};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind};
use crate::stanza::namespace::{DATA_FORM, DISCO_INFO, DISCO_ITEMS};
use crate::stanza::tree::push_attribute;
use crate::store::SharedStore;

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The door for administrators.
pub struct AdHoc {
    /// The component's own address, at which commands are asked.
    pub component: DomainPart,
    /// Who may.
    pub administrators: Setting<BTreeSet<BareJid>>,
    /// What commands work on.
    pub store: SharedStore,
    /// The present time.
    pub clock: Arc<dyn Clock>,
    /// Most devices of a list, for those that are brought back into one.
    pub max_devices: Box<dyn Fn() -> usize + Send + Sync>,
    /// Copies of one transaction of a purge.
    pub purge_batch: u32,
}

impl AdHoc {
    fn is_administrator(&self, iq: &Incoming<'_>) -> bool {
        self.administrators.with(|administrators| administrators.contains(&iq.from.to_bare()))
    }

    async fn command(&self, iq: &Incoming<'_>, request: &Request) -> Result<String, StanzaError> {
        let command = Command::of_node(&request.node)
            .ok_or_else(|| StanzaError::new(Condition::ItemNotFound, "there is no such command"))?;
        let session = match &request.session {
            Some(session) => session.clone(),
            None => fresh_session()?,
        };
        if request.action == Action::Cancel {
            return Ok(ad_hoc::canceled(&request.node, &session));
        }
        let (title, questions) = (command.title(), command.questions());
        if request.form.is_none() && !questions.is_empty() {
            return Ok(ad_hoc::asks(&request.node, &session, title, command.instructions(), questions));
        }
        let given = Given {
            store: self.store.as_ref(),
            clock: self.clock.as_ref(),
            max_devices: (self.max_devices)(),
            purge_batch: self.purge_batch,
            request,
        };
        if command.changes_something() {
            let owner = request.value("owner").unwrap_or_default();
            tracing::warn!(administrator = %iq.from.to_bare(), command = command.name(), owner, "a command of an administrator");
        }
        let until = Instant::now().checked_add(PATIENCE);
        let patience = move |_: Progress| match until {
            Some(until) if Instant::now() < until => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let report = command.run(&given, patience).await.map_err(refusal)?;
        Ok(ad_hoc::completed(&request.node, &session, &result_form::write(title, &report)))
    }

    /// What an administrator's client finds out about commands; others find nothing.
    fn discover(&self, namespace: &str, node: &str) -> Result<String, StanzaError> {
        match (namespace, node) {
            (DISCO_INFO, "") => Ok(disco::info(Subject::Component, &format!("<feature var='{NS}'/>"))),
            (DISCO_ITEMS, _) => {
                let mut out = format!("<query xmlns='{DISCO_ITEMS}' node='{NS}'>");
                for command in Command::ALL {
                    out.push_str("<item");
                    push_attribute(&mut out, "jid", self.component.as_str());
                    push_attribute(&mut out, "node", &command.node());
                    push_attribute(&mut out, "name", command.title());
                    out.push_str("/>");
                }
                out.push_str("</query>");
                Ok(out)
            }
            (_, node) => {
                let (kind, name) = match Command::of_node(node) {
                    Some(command) => ("command-node", command.title()),
                    None => ("command-list", "multiend"),
                };
                let mut out = format!("<query xmlns='{DISCO_INFO}'");
                push_attribute(&mut out, "node", node);
                out.push_str("><identity category='automation'");
                push_attribute(&mut out, "type", kind);
                push_attribute(&mut out, "name", name);
                out.push_str("/>");
                for feature in [NS, DATA_FORM] {
                    out.push_str("<feature");
                    push_attribute(&mut out, "var", feature);
                    out.push_str("/>");
                }
                out.push_str("</query>");
                Ok(out)
            }
        }
    }
}

#[async_trait]
impl Commands for AdHoc {
    fn recognises(&self, iq: &Incoming<'_>) -> bool {
        let to_component =
            iq.to.node().is_none() && iq.to.resource().is_none() && iq.to.domain().as_str() == self.component.as_str();
        let [payload] = iq.element.children() else { return false };
        if !to_component {
            return false;
        }
        let node = payload.attribute("node").unwrap_or_default();
        match (payload.name(), payload.namespace()) {
            ("command", NS) => iq.kind == Kind::IqSet,
            // Nobody else is told that there are commands.
            ("query", DISCO_INFO) if iq.kind == Kind::IqGet => {
                (node.is_empty() || node == NS || Command::of_node(node).is_some()) && self.is_administrator(iq)
            }
            ("query", DISCO_ITEMS) if iq.kind == Kind::IqGet => node == NS && self.is_administrator(iq),
            _ => false,
        }
    }

    async fn answer(&self, iq: &Incoming<'_>) -> Result<String, StanzaError> {
        if !self.is_administrator(iq) {
            return Err(StanzaError::new(Condition::Forbidden, "commands are for administrators"));
        }
        let [payload] = iq.element.children() else {
            return Err(StanzaError::new(Condition::BadRequest, "a request has exactly one payload"));
        };
        match payload.namespace() {
            NS => self.command(iq, &Request::parse(payload)?).await,
            namespace => self.discover(namespace, payload.attribute("node").unwrap_or_default()),
        }
    }
}

fn refusal(failure: Failure) -> StanzaError {
    match failure {
        Failure::Form(text) => StanzaError::new(Condition::BadRequest, text),
        Failure::Refused(text) => StanzaError::new(Condition::NotAcceptable, text),
        Failure::Store(error) => crate::door::service::store_error(&error),
    }
}

fn fresh_session() -> Result<String, StanzaError> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)
        .map_err(|_| StanzaError::new(Condition::InternalServerError, "the system gives no random bytes"))?;
    Ok(hex::encode(bytes))
}
