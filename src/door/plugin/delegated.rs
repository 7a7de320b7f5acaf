//! Requests that a plugin hands over for a client, and the device lists that it keeps a copy of.

use super::{OwnAddresses, PluginDoor, changed_list};
use crate::door::alias;
use crate::door::request::{Relation, Request};
use crate::door::service::{Answer, Payload};
use crate::link::LONGEST_STANZA;
use crate::model::{Owner, Requester};
use crate::stanza::delegation::{Delegated, DelegationError, Reply, push_list};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::Incoming;
use crate::stanza::mam;
use crate::stanza::pubsub::{self, Node};
use crate::stanza::tree::Element;

/// Longest reply, in bytes, with room for the IQ around it.
const LONGEST_REPLY: usize = LONGEST_STANZA - 16 * 1024;

impl PluginDoor {
    /// Answers a wrapped request. The error is one of the plugin; what the client did wrong is in the wrapper.
    pub(super) async fn delegated(&self, iq: &Incoming<'_>, wrapper: &Element<'_>) -> Result<Vec<String>, StanzaError> {
        let asked = Delegated::parse(wrapper).map_err(malformed)?;
        if !self.servers.may_speak_for(&iq.from, &asked.owner) {
            return Err(StanzaError::new(Condition::Forbidden, "a server speaks for its own accounts only"));
        }
        let changes = Payload::parse(asked.payload, asked.is_set).ok().and_then(|payload| changed_list(&payload));
        let mut page = None;
        loop {
            let answer = self.ask(&asked, page).await;
            let mut list = String::new();
            if let (Some(node), Ok(_)) = (changes, &answer) {
                // Without it, which is when the database has just gone away, the plugin asks for the list itself.
                let _ = self.push_list_in_force(&mut list, &asked.owner, node).await;
            }
            let (messages, result) = match &answer {
                Ok(answer) => (answer.messages.as_slice(), Ok(answer.result.as_str())),
                Err(error) => (Default::default(), Err(error)),
            };
            let to = &asked.from;
            let reply = Reply { owner: &asked.owner, to, id: asked.id, messages, result, list: &list }.to_xml();
            if reply.len() <= LONGEST_REPLY {
                let mut stanzas = vec![iq.result(&reply)];
                if let Ok(answer) = &answer {
                    stanzas.extend(alias::events(&self.aliases, &asked.owner, &answer.events));
                }
                return Ok(stanzas);
            }
            page = match messages.len() {
                0 | 1 => return Ok(vec![iq.result(&too_long(&asked))]),
                // Fewer of them fit; the client goes on from the last as after any page.
                count => Some(u32::try_from(count / 2).unwrap_or(1)),
            };
        }
    }

    /// Asks the service, for a page of at most `page` messages where it is one.
    async fn ask(&self, asked: &Delegated<'_, '_>, page: Option<u32>) -> Result<Answer, StanzaError> {
        let mut payload = Payload::parse(asked.payload, asked.is_set)?;
        let mut is_page = false;
        if let Payload::Archive(mam::Request::Query(query)) = &mut payload {
            is_page = true;
            query.max = page.or(query.max);
        }
        let request = Request {
            requester: Requester::new(asked.from.clone()),
            owner: asked.owner.clone(),
            relation: asked.relation,
            payload,
        };
        let mut answer = self.service.answer(request, &OwnAddresses).await?;
        if is_page && asked.unsettled {
            mam::mark_unstable(&mut answer.result);
        }
        Ok(answer)
    }

    /// Answers `<list owner='…' node='…'/>`: the device list in force.
    pub(super) async fn list(&self, iq: &Incoming<'_>, asked: &Element<'_>) -> Result<Vec<String>, StanzaError> {
        let owner = asked.attribute("owner").and_then(|owner| Owner::parse(owner).ok());
        let owner = owner.ok_or_else(|| malformed(DelegationError::Owner))?;
        let node = asked.attribute("node").and_then(Node::parse).filter(|node| matches!(node, Node::DeviceList(_)));
        let node = node.ok_or_else(|| StanzaError::new(Condition::BadRequest, "the node is not a device list"))?;
        if !self.servers.may_speak_for(&iq.from, &owner) {
            return Err(StanzaError::new(Condition::Forbidden, "a server speaks for its own accounts only"));
        }
        let mut list = String::new();
        self.push_list_in_force(&mut list, &owner, node).await?;
        Ok(vec![iq.result(&list)])
    }

    /// Appends `<list/>` with the device list in force. Asked as the account, not as one of its sessions: none of them has
    /// seen the list by this.
    async fn push_list_in_force(&self, out: &mut String, owner: &Owner, node: Node) -> Result<(), StanzaError> {
        let request = Request {
            requester: Requester::new(owner.jid().clone().into()),
            owner: owner.clone(),
            relation: Relation::Owner,
            payload: Payload::Pubsub(pubsub::Request::Items { node, ids: Vec::new(), max_items: None }),
        };
        match self.service.answer(request, &OwnAddresses).await {
            Ok(answer) => push_list(out, owner, &node.name(), Some(&answer.result)),
            Err(error) if error.condition == Condition::ItemNotFound => push_list(out, owner, &node.name(), None),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn malformed(error: DelegationError) -> StanzaError {
    StanzaError::new(Condition::BadRequest, error.to_string())
}

fn too_long(asked: &Delegated<'_, '_>) -> String {
    let text = "the answer would be too long for one stanza; ask for less at once";
    let error = StanzaError::new(Condition::NotAcceptable, text);
    Reply { owner: &asked.owner, to: &asked.from, id: asked.id, messages: &[], result: Err(&error), list: "" }.to_xml()
}
