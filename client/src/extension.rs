//! `urn:multiend:0` for the directory (docs/protocol.md): what the service says that it offers, requests, answers and
//! notices. Building and reading only: no I/O.

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::jid::BareJid;
use xmpp_parsers::message::Message;

use crate::protocol::{Protocol, RemoteDevice};
use crate::xml::{Build, ns};

/// The most devices in one claim.
pub(crate) const MAX_CLAIMED: usize = 256;

/// What a service offers beyond the standards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offers {
    /// Claims of many devices at once.
    pub(crate) claim: bool,
    /// Adding one device to the list.
    pub(crate) devices: bool,
    /// What became of the own prekeys.
    pub(crate) stock: bool,
    /// The self-check by digest.
    pub(crate) check: bool,
}

/// The question what is offered (XEP-0030).
pub(crate) fn discovery() -> Element {
    Build::new("query", ns::DISCO_INFO).into()
}

/// The answer to it.
pub(crate) fn read_offers(info: &Element) -> Offers {
    let has = |part: &str| {
        let name = format!("{}#{part}", ns::MULTIEND);
        info.children().any(|child| child.is("feature", ns::DISCO_INFO) && child.attr("var") == Some(name.as_str()))
    };
    Offers { claim: has("claim"), devices: has("devices"), stock: has("stock"), check: has("check") }
}

fn request(name: &str, protocol: Protocol) -> Build {
    Build::new(name, ns::MULTIEND).attr(xml_ncname!("protocol"), protocol.namespace())
}

fn of_device(name: &str, protocol: Protocol, device: u32) -> Element {
    request(name, protocol).attr(xml_ncname!("device"), device).into()
}

/// The request for one prekey of each device; accounts as given, in order.
pub(crate) fn claim(protocol: Protocol, wanted: &[(BareJid, Vec<u32>)]) -> Element {
    let device = |id: &u32| Build::new("device", ns::MULTIEND).attr(xml_ncname!("id"), id).into();
    let account = |(jid, devices): &(BareJid, Vec<u32>)| {
        Build::new("account", ns::MULTIEND).attr(xml_ncname!("jid"), jid).children(devices.iter().map(device)).into()
    };
    request("claim", protocol).children(wanted.iter().map(account)).into()
}

/// The answer to a claim: each device with its bundle, or with the condition that says why there is none.
pub(crate) fn read_claim(protocol: Protocol, answer: &Element) -> Option<Vec<(RemoteDevice, Result<Element, String>)>> {
    if !answer.is("claim", ns::MULTIEND) {
        return None;
    }
    let mut claimed = Vec::new();
    for account in answer.children().filter(|child| child.is("account", ns::MULTIEND)) {
        let owner = BareJid::new(account.attr("jid")?).ok()?;
        for device in account.children().filter(|child| child.is("device", ns::MULTIEND)) {
            let remote = RemoteDevice { account: owner.clone(), protocol, device: device.attr("id")?.parse().ok()? };
            let bundle = device.get_child("bundle", protocol.namespace()).cloned();
            claimed.push((remote, bundle.ok_or_else(|| condition(device))));
        }
    }
    Some(claimed)
}

/// The condition in an item's error.
fn condition(item: &Element) -> String {
    let condition = item.get_child("error", ns::MULTIEND).and_then(|error| error.children().next());
    condition.map_or_else(|| "no keys were given".to_owned(), |condition| condition.name().to_owned())
}

/// The request that puts this device into the list.
pub(crate) fn add_device(protocol: Protocol, device: u32) -> Element {
    of_device("add-device", protocol, device)
}

/// The list in force, from the answer to it.
pub(crate) fn read_list(answer: &Element) -> Option<&Element> {
    answer.is("list", ns::MULTIEND).then(|| answer.children().next()).flatten()
}

/// The question what became of the prekeys of this device.
pub(crate) fn stock(protocol: Protocol, device: u32) -> Element {
    of_device("stock", protocol, device)
}

/// The prekeys that others were given, used or not, from the answer to it.
pub(crate) fn read_issued(answer: &Element) -> Option<Vec<u32>> {
    if !answer.is("stock", ns::MULTIEND) {
        return None;
    }
    let prekeys = answer.children().filter(|child| child.is("prekey", ns::MULTIEND));
    let issued = prekeys.filter(|prekey| matches!(prekey.attr("state"), Some("issued" | "consumed")));
    issued.map(|prekey| prekey.attr("id")?.parse().ok()).collect()
}

/// The question what is published in this device's name.
pub(crate) fn check(protocol: Protocol, device: u32) -> Element {
    of_device("check", protocol, device)
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The digest of the bundle.
    pub(crate) bundle: Option<String>,
    /// How many of its prekeys nobody has.
    pub(crate) unissued: u32,
    /// The digest of the list.
    pub(crate) list: Option<String>,
    /// Whether this device is in it.
    pub(crate) listed: bool,
}

/// The answer to it.
pub(crate) fn read_check(answer: &Element) -> Option<Published> {
    if !answer.is("check", ns::MULTIEND) {
        return None;
    }
    let (bundle, list) = (answer.get_child("bundle", ns::MULTIEND), answer.get_child("list", ns::MULTIEND));
    let digest = |part: Option<&Element>| part.and_then(|part| part.attr("sha-256")).map(str::to_owned);
    Some(Published {
        bundle: digest(bundle),
        unissued: bundle.and_then(|bundle| bundle.attr("unissued")).and_then(|count| count.parse().ok()).unwrap_or(0),
        list: digest(list),
        listed: list.is_some_and(|list| list.attr("listed") == Some("true")),
    })
}

/// What a device is told without having asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Few prekeys are left that nobody has, or none.
    LowStock,
    /// The device is not listed any more; its bundle may be gone, too.
    Unlisted,
    /// All one-time prekeys are void.
    Restored,
}

/// The notice for this device in a message, if it is one, and the protocol that it is about.
pub(crate) fn read_notice(message: &Message, device: u32) -> Option<(Protocol, Notice)> {
    let payload = message.payloads.iter().find(|payload| payload.ns() == ns::MULTIEND)?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| payload.attr("protocol") == Some(protocol.namespace()))?;
    if payload.attr("device") != Some(device.to_string().as_str()) {
        return None;
    }
    let notice = match payload.name() {
        "low-stock" => Notice::LowStock,
        "quarantined" | "removed" => Notice::Unlisted,
        "restored" => Notice::Restored,
        _ => return None,
    };
    Some((protocol, notice))
}
