//! The life cycle of devices (DESIGN, directory invariant 8): quarantine first, removal later, and back at any sign of life.
//!
//! Quarantined is a device that has been listed too long without a bundle, or has not been seen for too long while another
//! device of its list was. It leaves the list that everybody is given, its owner too: clients publish what they have read
//! and themselves, and would bring it back at their next start. Its bundle stays. A list that names it again, or a sign of
//! its life, ends the quarantine; if none comes, it is removed.

use std::time::Duration;

use super::Directory;
use crate::model::{DeviceId, Owner, Protocol, Requester};
use crate::store::{DevicePlace, Due, DuePlace, QuarantineCause, Revived, SignOfLife, Step, StoreError};

/// Whether devices are quarantined and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nobody looks.
    Off,
    /// What would be done is counted; nothing is.
    #[default]
    DryRun,
    /// It is done.
    On,
}

/// When a device's life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeSettings {
    /// Whether anything is done about it.
    pub mode: Mode,
    /// How long a device may be listed without a bundle.
    pub bundle_grace: Duration,
    /// How long a device may go unseen while another one of its list is seen.
    pub unseen_limit: Duration,
    /// How long a quarantined device is kept.
    pub removal_delay: Duration,
    /// Signs of life closer together than this are one.
    pub seen_granularity: Duration,
    /// Devices looked at in one statement; at least 1.
    pub batch: u32,
}

impl Default for LifeSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            mode: Mode::DryRun,
            bundle_grace: DAY.saturating_mul(7),
            unseen_limit: DAY.saturating_mul(90),
            removal_delay: DAY.saturating_mul(30),
            seen_granularity: Duration::from_secs(60 * 60),
            batch: 500,
        }
    }
}

/// A pause after which devices may have lived without anybody here to see it.
const LONG_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// What one look at all devices came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LifeRun {
    /// Devices quarantined for want of a bundle, or that would be.
    pub no_bundle: u64,
    /// Devices quarantined because they were not seen, or that would be.
    pub unseen: u64,
    /// Devices removed, or that would be.
    pub removed: u64,
}

impl LifeRun {
    /// Devices quarantined, or that would be, by cause; for an operator's there is no clock.
    pub(super) fn quarantined(&self) -> [(QuarantineCause, u64); 2] {
        [(QuarantineCause::NoBundle, self.no_bundle), (QuarantineCause::Unseen, self.unseen)]
    }
}

impl Directory {
    /// A session of the owner has asked for something of its own, directory or archive: so its device has shown itself, if
    /// it is certain which one that is. Nothing is written yet. A database that is away is no reason to refuse what the
    /// session wants.
    pub async fn seen(&self, owner: &Owner, requester: &Requester) {
        let Some(session) = requester.session().filter(|_| requester.is(owner)) else { return };
        let now = self.clock.now();
        if self.life.asked(&session, now) {
            return;
        }
        for protocol in Protocol::ALL {
            match self.store.session_devices(owner, protocol, &session).await {
                // A session that has been two devices may go on as either.
                Ok(devices) => {
                    if let [device] = devices.as_slice() {
                        self.life.ask_no_more(&session, now);
                        self.alive(owner, protocol, *device);
                    }
                }
                Err(error) => tracing::debug!(%error, "which device a session is cannot be said now"),
            }
        }
    }

    /// A device has shown itself.
    pub(super) fn alive(&self, owner: &Owner, protocol: Protocol, device: DeviceId) {
        let sign = SignOfLife { place: DevicePlace { owner: owner.clone(), protocol, device }, at: self.clock.now() };
        if !self.life.note(sign, self.settings.with(|settings| settings.life.seen_granularity)) {
            self.metrics.sign_lost();
        }
    }

    /// Writes down the signs of life since the last call, and ends the quarantines that they end. What cannot be written is
    /// lost: a device that lives shows itself again.
    pub async fn flush_signs_of_life(&self) -> Result<(), StoreError> {
        let batch = usize::try_from(self.settings.with(|settings| settings.life.batch.max(1))).unwrap_or(usize::MAX);
        for signs in self.life.take().chunks(batch) {
            let back = self.store.note_signs_of_life(signs).await?;
            self.life.written(signs);
            for place in back {
                goes_on(self.revive(&place).await, &place)?;
            }
        }
        Ok(())
    }

    async fn revive(&self, place: &DevicePlace) -> Result<(), StoreError> {
        let limit = self.settings.with(|settings| settings.max_devices);
        match self.store.revive_device(place, limit, self.clock.now()).await? {
            Revived::Listed => {
                self.metrics.revived();
                tracing::info!(owner = %place.owner, protocol = place.protocol.name(), device = %place.device,
                    "a quarantined device has shown itself and is listed again");
            }
            Revived::NoRoom => {
                tracing::warn!(owner = %place.owner, protocol = place.protocol.name(), device = %place.device,
                    "a quarantined device has shown itself, and the list is full");
            }
            Revived::NotQuarantined => {}
        }
        Ok(())
    }

    /// Looks at every device that is due and, unless this is a dry run, does what is due, step by step, until `stop` says so.
    pub async fn run_life_cycle(&self, stop: impl Fn() -> bool + Send) -> Result<LifeRun, StoreError> {
        let (life, now) = (self.settings.with(|settings| settings.life), self.clock.now());
        let mut run = LifeRun::default();
        if life.mode == Mode::Off {
            self.metrics.device_states(&self.store.device_states().await?);
            return Ok(run);
        }
        let acts = life.mode == Mode::On;
        // Who just begins to look, or was away, has seen nobody: everybody gets the time to show themselves.
        let watched =
            if acts { self.store.watched_since(LONG_PAUSE, now).await? } else { now.minus(life.bundle_grace) };
        if now.since(watched) >= life.bundle_grace {
            run.no_bundle = self.step_all(Due::NoBundleSince(now.minus(life.bundle_grace)), acts, &stop).await?;
            run.unseen = self.step_all(Due::UnseenSince(now.minus(life.unseen_limit)), acts, &stop).await?;
        }
        run.removed = self.step_all(Due::QuarantinedSince(now.minus(life.removal_delay)), acts, &stop).await?;
        self.metrics.life_cycle(&run, life.mode);
        self.metrics.device_states(&self.store.device_states().await?);
        if acts && run != LifeRun::default() {
            tracing::info!(
                no_bundle = run.no_bundle,
                unseen = run.unseen,
                removed = run.removed,
                "life cycle of devices"
            );
        }
        Ok(run)
    }

    /// Takes one step with every device that is due; how many it was taken with, or would be.
    async fn step_all(&self, due: Due, acts: bool, stop: &(impl Fn() -> bool + Send)) -> Result<u64, StoreError> {
        let mut stepped = 0_u64;
        let mut after: Option<DuePlace> = None;
        while !stop() {
            let page =
                self.store.due_devices(due, after, self.settings.with(|settings| settings.life.batch.max(1))).await?;
            for place in &page.devices {
                if !acts || self.step(place, due).await? {
                    stepped = stepped.saturating_add(1);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
            tokio::task::yield_now().await;
        }
        Ok(stepped)
    }

    async fn step(&self, place: &DevicePlace, due: Due) -> Result<bool, StoreError> {
        let (step, now) = (Step::IfDue(due), self.clock.now());
        let stepped = match due {
            Due::QuarantinedSince(_) => self.store.retire_device(place, step, now).await,
            Due::NoBundleSince(_) | Due::UnseenSince(_) => self.store.quarantine_device(place, step, now).await,
        };
        Ok(goes_on(stepped, place)?.unwrap_or(false))
    }
}

/// What is wrong with one device must not keep the others waiting; a database that is away is away for all.
fn goes_on<T>(result: Result<T, StoreError>, place: &DevicePlace) -> Result<Option<T>, StoreError> {
    match result {
        Err(error) if !matches!(error, StoreError::Unavailable(_)) => {
            tracing::warn!(%error, owner = %place.owner, "a step in the life of a device failed; it is tried again later");
            Ok(None)
        }
        result => result.map(Some),
    }
}
