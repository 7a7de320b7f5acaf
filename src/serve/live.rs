//! The settings that may change while the program runs (SIGHUP), shared by the parts that go by them.

use std::collections::BTreeSet;
use std::time::Duration;

use jid::BareJid;

use crate::archive::{PageLimits, Retention};
use crate::config::{Config, LifecycleMode};
use crate::directory;
use crate::model::{Setting, Unreadable};
use crate::store::ClaimRules;

/// Most bytes of messages in a page that a plugin takes to its client: it travels as one stanza.
const PLUGIN_PAGE_BYTES: usize = 256 * 1024;

/// Who was given a last resort is remembered for so long, beyond the repeat window: its key exchange may still come.
const CLAIMS_REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Handles on them. Which keys of the file these are says [`crate::config::Given::is_reloaded`].
pub(super) struct LiveSettings {
    pub(super) retention: Setting<Retention>,
    pub(super) unreadable: Setting<Unreadable>,
    pub(super) pages: Setting<PageLimits>,
    /// For pages that travel through a plugin.
    pub(super) plugin_pages: Setting<PageLimits>,
    pub(super) directory: Setting<directory::Settings>,
    /// Who may give commands.
    pub(super) administrators: Setting<BTreeSet<BareJid>>,
    /// How long claims are remembered at least.
    pub(super) remembered: Setting<Duration>,
}

impl LiveSettings {
    /// As the program starts.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            retention: retention(config).into(),
            unreadable: config.archive.unreadable.into(),
            pages: page_limits(config).into(),
            plugin_pages: plugin_page_limits(config).into(),
            directory: directory_settings(config).into(),
            administrators: config.admin.jids.clone().into(),
            remembered: remembered(config).into(),
        }
    }

    /// As they are from now on.
    pub(super) fn apply(&self, config: &Config) {
        self.retention.set(retention(config));
        self.unreadable.set(config.archive.unreadable);
        self.pages.set(page_limits(config));
        self.plugin_pages.set(plugin_page_limits(config));
        // Whose users are served does not change while the program runs: too much hangs on it.
        let domains = self.directory.with(|settings| settings.domains.clone());
        self.directory.set(directory::Settings { domains, ..directory_settings(config) });
        self.administrators.set(config.admin.jids.clone());
        self.remembered.set(remembered(config));
    }
}

fn remembered(config: &Config) -> Duration {
    config.directory.repeat_window.max(CLAIMS_REMEMBERED)
}

fn directory_settings(config: &Config) -> directory::Settings {
    directory::Settings {
        max_devices: config.directory.max_devices,
        claims: claim_rules(config),
        domains: config.domains.clone(),
        max_subscriptions: config.directory.max_subscriptions,
        life: life_settings(config),
    }
}

fn life_settings(config: &Config) -> directory::LifeSettings {
    let life = &config.directory.lifecycle;
    directory::LifeSettings {
        mode: match life.mode {
            LifecycleMode::Off => directory::Mode::Off,
            LifecycleMode::DryRun => directory::Mode::DryRun,
            LifecycleMode::On => directory::Mode::On,
        },
        bundle_grace: life.bundle_grace,
        unseen_limit: life.unseen_limit,
        removal_delay: life.removal_delay,
        seen_granularity: life.seen_granularity,
        batch: life.batch,
    }
}

fn claim_rules(config: &Config) -> ClaimRules {
    let directory = &config.directory;
    ClaimRules {
        repeat_window: directory.repeat_window,
        per_device: directory.claims_per_device,
        per_requester: directory.claims_per_requester,
        per_domain: directory.claims_per_domain,
        reserve: directory.prekey_reserve,
        reserve_per_hour: directory.reserve_per_hour,
        low_stock: directory.low_stock,
    }
}

fn page_limits(config: &Config) -> PageLimits {
    PageLimits {
        default: config.archive.page_default,
        max: config.archive.page_max,
        max_bytes: config.archive.page_bytes,
    }
}

fn plugin_page_limits(config: &Config) -> PageLimits {
    let limits = page_limits(config);
    PageLimits { max_bytes: limits.max_bytes.min(PLUGIN_PAGE_BYTES), ..limits }
}

/// How long messages are kept, as the configuration says.
pub fn retention(config: &Config) -> Retention {
    let kept = &config.archive.retention;
    Retention { content: kept.content, key_transport: kept.key_transport, plain: kept.plain, signal: kept.signal }
}
