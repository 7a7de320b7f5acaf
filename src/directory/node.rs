//! What there is of an owner's directory: which lists, and which devices have bundles. Looking at this is not looking at a
//! list: a session that has asked for names only has not seen who is listed (invariant 6).

use super::{Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Protocol};

/// Most devices with a bundle that are named, per protocol.
const MAX_BUNDLES: u32 = 256;

/// An owner's directory in one protocol, by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// In which protocol.
    pub protocol: Protocol,
    /// Whether there is a device list, be it an empty one.
    pub has_list: bool,
    /// The devices that have a bundle, by id, with the item id of each.
    pub bundles: Vec<(DeviceId, String)>,
}

impl Directory {
    /// What there is, protocol by protocol. Nothing at all for an account that is not known.
    pub async fn contents(&self, owner: &Owner) -> Result<Vec<Contents>, DirectoryError> {
        let mut contents = Vec::new();
        for protocol in Protocol::ALL {
            let has_list = self.store.device_list(owner, protocol, None).await?.is_some();
            let bundles = self.store.bundle_items(owner, protocol, MAX_BUNDLES).await?;
            contents.push(Contents { protocol, has_list, bundles });
        }
        Ok(contents)
    }
}
