//! Who a prekey is for.

use std::fmt;

use jid::BareJid;

use super::address::{Owner, Requester};
use super::device::DeviceId;

/// Whoever gets the same prekey again when it asks again (DESIGN, directory invariant 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claimant {
    /// A device of an account of ours, whichever session it asks from: known only where the session certainly is that
    /// device and no other.
    Device(Owner, DeviceId),
    /// An address of which no more is known: a full JID, or whatever the request came from.
    Address(Requester),
}

impl Claimant {
    /// The account behind it: the bare JID that limits are counted for.
    pub fn account(&self) -> BareJid {
        match self {
            Self::Device(account, _) => account.jid().clone(),
            Self::Address(requester) => requester.jid().to_bare(),
        }
    }

    /// Whether it belongs to this account.
    pub fn is_of(&self, owner: &Owner) -> bool {
        match self {
            Self::Device(account, _) => account == owner,
            Self::Address(requester) => requester.is(owner),
        }
    }
}

/// As the database keeps it. A device is written with a space, which no bare JID can hold, so the two never meet; both begin
/// with the account.
impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(account, device) => write!(f, "{account} #{device}"),
            Self::Address(requester) => requester.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_addresses_never_meet() {
        let account = Owner::parse("bob@example.org").unwrap();
        let device = Claimant::Device(account.clone(), DeviceId::new(5).unwrap());
        assert_eq!(device.to_string(), "bob@example.org #5");
        assert!(Requester::parse("bob@example.org #5").is_err());
        for address in ["bob@example.org/ #5", "bob@example.org/#5", "bob@example.org"] {
            let Ok(requester) = Requester::parse(address) else { continue };
            let address = Claimant::Address(requester);
            assert_ne!(address.to_string(), device.to_string());
            assert!(address.is_of(&account) && device.is_of(&account));
            assert_eq!(address.account(), device.account());
        }
    }
}
