//! The three-way merge of device lists (DESIGN, directory invariant 6). Pure: both databases call it.

use crate::model::{Device, DeviceId, DeviceList};

/// The list that comes into force: what was published, in its order, and after it what is in force and was never seen by
/// the publishing session, which it therefore cannot have meant to remove. `None` if that is more than `limit` devices.
pub(super) fn merge(
    published: &DeviceList,
    in_force: Option<&DeviceList>,
    seen: &[DeviceId],
    limit: usize,
) -> Option<DeviceList> {
    let unseen = in_force
        .map(DeviceList::devices)
        .unwrap_or_default()
        .iter()
        .filter(|device| !published.contains(device.id) && !seen.contains(&device.id));
    let merged: Vec<Device> = published.devices().iter().chain(unseen).cloned().collect();
    if merged.len() > limit {
        return None;
    }
    DeviceList::new(merged).ok()
}
