//! Answers to `urn:multiend:0` about directories (docs/protocol.md), the same through every door.

use super::directory::{events, stanza_error};
use super::request::Request;
use super::service::{Addressing, Answer};
use crate::directory::{BundleItem, ClaimError, Directory, ListChange, OwnerClaimed, WantedDevices, digest};
use crate::model::{Owner, Protocol, Requester};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::extension::{self, Device, check, claim, device, stock};
use crate::stanza::pubsub::{self, Item, Node};
use crate::stanza::tree::Element;
use crate::stanza::{bundle, device_list};
use crate::store::PrekeyState;

/// Answers one request.
pub(super) async fn answer(
    directory: &Directory,
    request: Request<extension::Request>,
    addressing: &dyn Addressing,
) -> Result<Answer, StanzaError> {
    let Request { requester, owner, payload, .. } = request;
    match payload {
        extension::Request::Claim(wanted) => claim(directory, &owner, &requester, &wanted, addressing).await,
        extension::Request::AddDevice(device::Add { protocol, device }) => {
            let change = directory.add_device(&owner, &requester, protocol, &device).await.map_err(stanza_error)?;
            Ok(list_changed(change, protocol))
        }
        extension::Request::RemoveDevice(Device { protocol, id }) => {
            let change = directory.remove_device(&owner, &requester, protocol, id).await.map_err(stanza_error)?;
            Ok(list_changed(change, protocol))
        }
        extension::Request::Stock(stock::Request { device, others }) => {
            let states = directory.prekey_states(&owner, &requester, device.protocol, device.id, &others).await;
            let prekeys: Vec<_> =
                states.map_err(stanza_error)?.into_iter().map(|(id, became)| (id, state(became))).collect();
            Ok(Answer::result(stock::result(device, &prekeys)))
        }
        extension::Request::Check(device) => check(directory, &owner, &requester, device).await,
    }
}

async fn claim(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    request: &claim::Request,
    addressing: &dyn Addressing,
) -> Result<Answer, StanzaError> {
    let mut known = Vec::new();
    let mut places = Vec::with_capacity(request.accounts.len());
    for account in &request.accounts {
        let of = match &account.jid {
            None => Some(owner.clone()),
            Some(jid) => addressing.resolve(&jid.clone().into()).and_then(|jid| Owner::new(jid.to_bare()).ok()),
        };
        places.push(of.map(|owner| {
            known.push(WantedDevices { owner, devices: account.devices.clone() });
        }));
    }
    let claimed =
        directory.claim_accounts(requester, request.protocol, &known, request.strict, claim::MAX_DEVICES).await;
    let mut claimed = claimed.map_err(stanza_error)?.into_iter();
    let answers: Vec<claim::Answer> = request
        .accounts
        .iter()
        .zip(places)
        .map(|(account, place)| claim::Answer {
            jid: account.jid.clone(),
            devices: place.and_then(|()| claimed.next()).map_or_else(|| Err(no_account()), devices),
        })
        .collect();
    Ok(Answer::result(claim::result(request.protocol, &answers)))
}

fn no_account() -> StanzaError {
    StanzaError::new(Condition::ItemNotFound, "no such account")
}

fn devices(claimed: OwnerClaimed) -> Result<claim::Devices, StanzaError> {
    match claimed {
        OwnerClaimed::Devices(devices) => Ok(devices.into_iter().map(|(id, claimed)| (id, handed(claimed))).collect()),
        OwnerClaimed::NoList => Err(StanzaError::new(Condition::ItemNotFound, "this account has no device list")),
        OwnerClaimed::TooMany => Err(StanzaError::new(
            Condition::PolicyViolation,
            format!("with this account's devices the claim would be for more than {}", claim::MAX_DEVICES),
        )),
    }
}

fn handed(claimed: Result<BundleItem, ClaimError>) -> Result<claim::Handed, StanzaError> {
    match claimed {
        Ok(BundleItem::WithPrekey { identity_key, signed_prekey, prekey, .. }) => {
            Ok(claim::Handed { identity_key, signed_prekey, prekey })
        }
        Ok(BundleItem::AsPublished { .. }) | Err(ClaimError::NoBundle) => {
            Err(StanzaError::new(Condition::ItemNotFound, "no such bundle"))
        }
        Err(error @ (ClaimError::NoPrekey | ClaimError::Limited(_))) => {
            Err(StanzaError::new(Condition::ResourceConstraint, error.to_string()))
        }
        Err(ClaimError::Store(error)) => Err(super::service::store_error(&error)),
    }
}

/// The list now in force, to who asked and to the subscribers.
fn list_changed(change: ListChange, protocol: Protocol) -> Answer {
    let node = Node::DeviceList(protocol);
    let item = Item { id: super::directory::CURRENT.to_owned(), payload: device_list::write(&change.list, protocol) };
    Answer {
        result: device::result(&change.list, protocol),
        events: events(change.announce_to, &pubsub::event(node, &[item])),
        ..Answer::default()
    }
}

fn state(became: PrekeyState) -> stock::State {
    match became {
        PrekeyState::Unissued => stock::State::Unissued,
        PrekeyState::Issued => stock::State::Issued,
        PrekeyState::Consumed => stock::State::Consumed,
    }
}

async fn check(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    device: Device,
) -> Result<Answer, StanzaError> {
    let Device { protocol, id } = device;
    let published = directory.check(owner, requester, protocol, id).await.map_err(stanza_error)?;
    let bundle = published.bundle.map(|(payload, unissued)| {
        let element = Element::parse(&payload).map_err(|_| unreadable())?;
        let parsed = bundle::parse(&element, protocol).map_err(|_| unreadable())?;
        Ok((digest::of_bundle(&parsed, id, protocol), unissued))
    });
    let list = published.list.map(|list| (digest::of_list(&list, protocol), list.contains(id)));
    Ok(Answer::result(check::result(device, &check::Published { bundle: bundle.transpose()?, list })))
}

/// What was published was read before it was stored.
fn unreadable() -> StanzaError {
    tracing::error!("a stored bundle cannot be read");
    StanzaError::new(Condition::InternalServerError, "a fault on our side; it has been logged")
}
