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

/// The list with one device more at its end, or with a listed device's label replaced. `None` if that is more than `limit`.
pub(super) fn with_device(in_force: Option<&DeviceList>, device: &Device, limit: usize) -> Option<DeviceList> {
    let mut devices = in_force.map(DeviceList::devices).unwrap_or_default().to_vec();
    let full = devices.len() >= limit;
    match devices.iter_mut().find(|listed| listed.id == device.id) {
        Some(listed) => *listed = device.clone(),
        None if full => return None,
        None => devices.push(device.clone()),
    }
    DeviceList::new(devices).ok()
}

/// The list without a device.
pub(super) fn without_device(in_force: &DeviceList, device: DeviceId) -> DeviceList {
    let others = in_force.devices().iter().filter(|listed| listed.id != device).cloned().collect();
    DeviceList::new(others).unwrap_or_default()
}

/// What a session has seen that has put a device into the list: that device, and what it had seen before.
pub(super) fn seen_with(seen: &[DeviceId], device: DeviceId) -> DeviceList {
    let before = seen.iter().copied().filter(|id| *id != device);
    DeviceList::new(before.chain([device]).map(Device::unlabelled).collect()).unwrap_or_default()
}

/// What a session has seen that has taken a device off the list.
pub(super) fn seen_without(seen: &[DeviceId], device: DeviceId) -> DeviceList {
    let others = seen.iter().copied().filter(|id| *id != device);
    DeviceList::new(others.map(Device::unlabelled).collect()).unwrap_or_default()
}
