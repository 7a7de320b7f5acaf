//! Doors: at which addresses an account's directory, archive and messages are reached.
//!
//! Every other module speaks of accounts (bare JIDs); only this one knows what is written into `to` and read from `from`.

use xmpp_parsers::jid::{BareJid, Jid};

use crate::escape::{escape, unescape};

/// How the client reaches directory and archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// At the accounts' own bare JIDs: an ordinary server with PEP and XEP-0313, or one with multiend's plugin.
    Direct,
    /// Through a multiend component at this domain. `alice\40example.org@component` stands for `alice@example.org`.
    Alias {
        /// The component's JID, a domain.
        component: BareJid,
    },
}

impl Door {
    /// Where `account` is addressed: its device list, its bundles, its archive, and messages to it.
    pub fn address_of(&self, account: &BareJid) -> Jid {
        match self {
            Self::Direct => account.clone().into(),
            Self::Alias { component } => component
                .domain()
                .with_node_str(&escape(account.as_str()))
                // The escape of an account is a valid local part unless it exceeds 1023 bytes; then the plain
                // address is as good as any that cannot be reached.
                .map_or_else(|_| account.clone().into(), Jid::from),
        }
    }

    /// The account behind an address that stands in a stanza, whichever resource it carries. `None` for the component
    /// itself and for what is no account.
    pub fn account_at(&self, address: &Jid) -> Option<BareJid> {
        let bare = address.to_bare();
        match self {
            Self::Alias { component } if bare.domain() == component.domain() => {
                let account = BareJid::new(&unescape(bare.node()?.as_str())).ok()?;
                account.node().is_some().then_some(account)
            }
            _ => bare.node().is_some().then_some(bare),
        }
    }

    /// Whether what stands at the other end confirms each archived message (`urn:multiend:0`).
    pub fn acknowledges(&self) -> bool {
        matches!(self, Self::Alias { .. })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_leads_to_the_account_and_back() {
        let door = Door::Alias { component: BareJid::new("multiend.example.org").unwrap() };
        let alice = BareJid::new("alice@example.org").unwrap();
        let alias = door.address_of(&alice);
        assert_eq!(alias.as_str(), r"alice\40example.org@multiend.example.org");
        assert_eq!(door.account_at(&alias), Some(alice.clone()));
        let with_resource = Jid::new(r"alice\40example.org@multiend.example.org/phone").unwrap();
        assert_eq!(door.account_at(&with_resource), Some(alice));
        assert_eq!(door.account_at(&Jid::new("multiend.example.org").unwrap()), None);
        assert_eq!(door.account_at(&Jid::new("nobody@multiend.example.org").unwrap()), None);
    }
}
