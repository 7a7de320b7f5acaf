//! Alias addresses: `alice\40example.org@multiend.example.org` is "alice@example.org, through multiend" (XEP-0106).

use std::collections::BTreeSet;

use jid::{BareJid, DomainPart, Jid, NodePart};

use crate::model::Owner;
use crate::stanza::jid_escaping::{escape, unescape};

/// Whom a stanza to the component's domain is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    /// The component itself.
    Component,
    /// An account of a domain that we serve; with the resource, where the address has one.
    Alias(Owner, Option<String>),
    /// Nothing that we know: no alias, or of a domain that we do not serve.
    Nobody,
}

/// Translates between accounts and their aliases.
#[derive(Debug, Clone)]
pub struct Aliases {
    component: DomainPart,
    domains: BTreeSet<DomainPart>,
}

impl Aliases {
    /// Aliases below a component, for the accounts of the domains given.
    pub fn new(component: DomainPart, domains: impl IntoIterator<Item = DomainPart>) -> Self {
        Self { component, domains: domains.into_iter().collect() }
    }

    /// The component's own address.
    pub fn component(&self) -> &str {
        self.component.as_str()
    }

    /// The component's own address, as a JID.
    pub fn component_jid(&self) -> BareJid {
        BareJid::from_parts(None, &self.component)
    }

    /// The account behind a JID of a domain that we serve; `None` for strangers and servers.
    pub fn local_account(&self, jid: &Jid) -> Option<Owner> {
        if !self.domains.iter().any(|domain| domain.as_str() == jid.domain().as_str()) {
            return None;
        }
        Owner::new(jid.to_bare()).ok()
    }

    /// Whom `to` addresses.
    pub fn addressee(&self, to: &Jid) -> Addressee {
        if to.domain().as_str() != self.component() {
            return Addressee::Nobody;
        }
        let Some(node) = to.node() else { return Addressee::Component };
        let account = unescape(node.as_str());
        let owner = Jid::new(&account).ok().filter(Jid::is_bare).and_then(|jid| self.local_account(&jid));
        let resource = to.resource().map(|resource| resource.as_str().to_owned());
        owner.map_or(Addressee::Nobody, |owner| Addressee::Alias(owner, resource))
    }

    /// The alias of an account. An account whose escaped address is too long for a local part (1,023 bytes) has none.
    pub fn alias(&self, account: &BareJid) -> Option<BareJid> {
        let local = escape(account.as_str());
        let node = NodePart::new(&local).ok()?;
        Some(BareJid::from_parts(Some(&node), &self.component))
    }

    /// The alias of an account as text, as clients write it; the account's own address if it has no alias.
    pub fn alias_text(&self, account: &BareJid) -> String {
        self.alias(account).map_or_else(|| account.to_string(), |alias| alias.to_string())
    }

    /// The account behind a JID that is an alias, resource kept; any other JID as it is. For what clients name in requests.
    pub fn resolve(&self, jid: &Jid) -> Option<Jid> {
        match self.addressee(jid) {
            Addressee::Alias(owner, None) => Some(owner.jid().clone().into()),
            Addressee::Alias(owner, Some(resource)) => owner.jid().with_resource_str(&resource).ok().map(Jid::from),
            Addressee::Component => None,
            Addressee::Nobody => (jid.domain().as_str() != self.component()).then(|| jid.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases() -> Aliases {
        let domain = |name: &str| DomainPart::new(name).unwrap().into_owned();
        Aliases::new(domain("multiend.example.org"), [domain("example.org"), domain("example.net")])
    }

    #[test]
    fn an_alias_names_its_account_and_back() {
        let aliases = aliases();
        let jid = Jid::new(r"alice\40example.org@multiend.example.org/phone").unwrap();
        let alice = Owner::parse("alice@example.org").unwrap();
        assert_eq!(aliases.addressee(&jid), Addressee::Alias(alice.clone(), Some("phone".to_owned())));
        assert_eq!(aliases.alias_text(alice.jid()), r"alice\40example.org@multiend.example.org");
        assert_eq!(aliases.resolve(&jid).unwrap().as_str(), "alice@example.org/phone");
    }

    #[test]
    fn an_account_with_an_escaped_name_has_an_alias_too() {
        let aliases = aliases();
        let account = BareJid::new(r"d\27artagnan@example.org").unwrap();
        let alias = aliases.alias(&account).unwrap();
        assert_eq!(alias.as_str(), r"d\5c27artagnan\40example.org@multiend.example.org");
        let owner = Owner::new(account).unwrap();
        assert_eq!(aliases.addressee(&alias.into()), Addressee::Alias(owner, None));
    }

    #[test]
    fn foreign_domains_and_nonsense_are_nobody() {
        let aliases = aliases();
        for jid in [
            r"eve\40evil.example@multiend.example.org",
            "alice@multiend.example.org",
            r"alice\40example.org\2fphone@multiend.example.org",
            r"\40example.org@multiend.example.org",
        ] {
            assert_eq!(aliases.addressee(&Jid::new(jid).unwrap()), Addressee::Nobody, "{jid}");
        }
        assert_eq!(aliases.addressee(&Jid::new("multiend.example.org/x").unwrap()), Addressee::Component);
    }
}
