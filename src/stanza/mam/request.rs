//! Reading what a client asks of an archive.

use jid::Jid;

use super::{NS, field, read_preferences};
use crate::model::{ArchiveId, ArchivePreferences, ProtocolDevice, Timestamp, Unreadable};
use crate::stanza::data_form::{self, Field, FormError};
use crate::stanza::rsm;
use crate::stanza::tree::Element;
use crate::store::{Edge, Filter};

/// Longest `queryid` taken, in bytes: it comes back with every message of the page.
const MAX_QUERY_ID: usize = 256;
/// Most devices that one query may name.
const MAX_DEVICES: usize = 8;
/// Most ids that one query may name.
const MAX_IDS: usize = 500;

/// Why a request cannot be answered; each is the stanza error of XEP-0313 or XEP-0059 for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// `bad-request`.
    #[error("{0}")]
    BadRequest(String),
    /// `feature-not-implemented`.
    #[error("{0}")]
    NotImplemented(String),
    /// `item-not-found`: it names an id that no archive can hold.
    #[error("no message with this id is in the archive")]
    UnknownId,
}

impl From<FormError> for RequestError {
    fn from(error: FormError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

fn bad(text: impl Into<String>) -> RequestError {
    RequestError::BadRequest(text.into())
}

/// What may be asked of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// For a page of messages (§4).
    Query(Box<Query>),
    /// For the form fields that a query may have (§4.1.5).
    Form,
    /// For the ends of the archive (§5).
    Metadata,
    /// For what the owner wants archived (XEP-0441).
    Preferences,
    /// To archive by these preferences from now on (XEP-0441), their JIDs as the client writes them.
    SetPreferences(ArchivePreferences),
}

impl Request {
    /// Reads the payload of an IQ of type `get`.
    pub fn from_get(payload: &Element<'_>) -> Result<Self, RequestError> {
        match payload.name() {
            "query" if payload.namespace() == NS => Ok(Self::Form),
            "metadata" if payload.namespace() == NS => Ok(Self::Metadata),
            "prefs" if payload.namespace() == NS => Ok(Self::Preferences),
            _ => Err(RequestError::NotImplemented("an archive does not know this request".to_owned())),
        }
    }

    /// Reads the payload of an IQ of type `set`.
    pub fn from_set(payload: &Element<'_>) -> Result<Self, RequestError> {
        match payload.name() {
            "query" if payload.namespace() == NS => Query::parse(payload).map(|query| Self::Query(Box::new(query))),
            "prefs" if payload.namespace() == NS => read_preferences(payload).map(Self::SetPreferences),
            _ => Err(RequestError::NotImplemented("an archive does not know this request".to_owned())),
        }
    }
}

/// A query for a page of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The client's own name for the query.
    pub query_id: Option<String>,
    /// The node, for archives of pubsub nodes (XEP-0442).
    pub node: Option<String>,
    /// Which messages.
    pub filter: Filter,
    /// Which page of them.
    pub edge: Edge,
    /// Most messages in the page, as asked; 0 asks for the count only.
    pub max: Option<u32>,
    /// Whether the page is to be sent newest first.
    pub flip_page: bool,
    /// Whether groupchat messages are wanted.
    pub include_groupchat: Option<bool>,
    /// As which devices the client wants to see the messages.
    pub devices: Vec<ProtocolDevice>,
    /// What it wants of those that have no header for them.
    pub unreadable: Option<Unreadable>,
}

impl Query {
    /// Reads a `<query/>` element.
    pub fn parse(query: &Element<'_>) -> Result<Self, RequestError> {
        let query_id = query.attribute("queryid").map(str::to_owned);
        if query_id.as_ref().is_some_and(|id| id.len() > MAX_QUERY_ID) {
            return Err(bad("the queryid is too long"));
        }
        let mut asked = Asked::default();
        if let Some(form) = query.child("x", data_form::NS) {
            for field in data_form::submitted(form, NS)? {
                asked.read(&field)?;
            }
        }
        let Asked { mut filter, include_groupchat, devices, unreadable } = asked;
        let page = rsm::Request::of(query).map_err(|error| bad(error.to_string()))?;
        if page.index {
            return Err(RequestError::NotImplemented("pages by number are not supported".to_owned()));
        }
        let edge = edge(page.before.as_deref(), page.after.as_deref(), &mut filter)?;
        Ok(Self {
            query_id,
            node: query.attribute("node").filter(|node| !node.is_empty()).map(str::to_owned),
            filter,
            edge,
            max: page.max,
            flip_page: query.child("flip-page", NS).is_some(),
            include_groupchat,
            devices,
            unreadable,
        })
    }
}

/// Where the page begins. With both, `before` says the direction, and `after` how far it goes back (§4.3.2 and XEP-0059
/// leave that undefined).
fn edge(before: Option<&str>, after: Option<&str>, filter: &mut Filter) -> Result<Edge, RequestError> {
    let after = after.map(archive_id).transpose()?;
    let before = match before {
        Some("") => Some(Edge::Last),
        Some(id) => Some(Edge::Before(archive_id(id)?)),
        None => None,
    };
    match (before, after) {
        (None, None) => Ok(Edge::First),
        (None, Some(after)) => Ok(Edge::After(after)),
        (Some(edge), None) => Ok(edge),
        (Some(edge), Some(after)) => {
            if filter.after_id.as_ref().is_some_and(|id| *id != after) {
                return Err(bad("<before/>, <after/> and after-id do not go together"));
            }
            filter.after_id = Some(after);
            Ok(edge)
        }
    }
}

/// What the fields of a form ask for.
#[derive(Default)]
struct Asked {
    filter: Filter,
    include_groupchat: Option<bool>,
    devices: Vec<ProtocolDevice>,
    unreadable: Option<Unreadable>,
}

impl Asked {
    fn read(&mut self, field: &Field) -> Result<(), RequestError> {
        let filter = &mut self.filter;
        match field.var.as_str() {
            field::WITH => {
                filter.with = field
                    .single()?
                    .map(|jid| Jid::new(jid).map_err(|_| bad("the form field 'with' is not a JID")))
                    .transpose()?;
            }
            field::START => filter.start = time(field)?,
            field::END => filter.end = time(field)?,
            field::BEFORE_ID => filter.before_id = field.single()?.map(archive_id).transpose()?,
            field::AFTER_ID => filter.after_id = field.single()?.map(archive_id).transpose()?,
            field::IDS => {
                if field.values.len() > MAX_IDS {
                    return Err(bad(format!("a query may name at most {MAX_IDS} ids")));
                }
                filter.ids = field.values.iter().map(|id| archive_id(id.trim())).collect::<Result<_, _>>()?;
            }
            field::INCLUDE_GROUPCHAT => {
                self.include_groupchat = match field.single()? {
                    None => None,
                    Some("true" | "1") => Some(true),
                    Some("false" | "0") => Some(false),
                    Some(_) => return Err(bad("the form field 'include-groupchat' is true or false")),
                };
            }
            field::DEVICE => self.devices = devices(field)?,
            field::VIEW => {
                let view = |name| Unreadable::parse(name).ok_or_else(|| bad("a view is keep, trim or omit"));
                self.unreadable = field.single()?.map(view).transpose()?;
            }
            other => {
                let name: String = other.chars().take(64).collect();
                return Err(RequestError::NotImplemented(format!("the form field '{name}' is not supported")));
            }
        }
        Ok(())
    }
}

/// The devices that a client says it is.
fn devices(field: &Field) -> Result<Vec<ProtocolDevice>, RequestError> {
    if field.values.len() > MAX_DEVICES {
        return Err(bad(format!("a query may name at most {MAX_DEVICES} devices")));
    }
    let device = |text: &String| {
        ProtocolDevice::parse(text.trim()).ok_or_else(|| bad("a device is written as legacy:ID or omemo2:ID"))
    };
    field.values.iter().filter(|text| !text.trim().is_empty()).map(device).collect()
}

fn time(field: &Field) -> Result<Option<Timestamp>, RequestError> {
    let parse = |text| {
        Timestamp::parse_xmpp(text)
            .ok_or_else(|| bad(format!("the form field '{}' is not a time as XEP-0082 writes it", field.var)))
    };
    field.single()?.map(parse).transpose()
}

/// An id that could not be one of ours (too long, say) is simply in no archive.
fn archive_id(text: &str) -> Result<ArchiveId, RequestError> {
    ArchiveId::parse(text).map_err(|_| RequestError::UnknownId)
}
