//! The sections of the file. Every key has its unit and default here and in `docs/multiend.example.toml`; a test holds the
//! two together.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jid::BareJid;
use serde::Deserialize;

use super::values::{LogLevel, ServerAddress, accounts, classes, duration, duration_or_zero, within};
use crate::archive::Keep;
use crate::model::{Class, Unreadable};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[component]`: the connection to the XMPP server, without name and secret, which have no default (see
/// [`super::Config`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentSettings {
    /// `server`: where the server takes components. XEP-0114 has no encryption of its own: keep it on this machine or on a
    /// private network. Default `127.0.0.1:5347`.
    pub server: ServerAddress,
    /// `keepalive_interval`: how long the stream may be silent before the server is pinged. Default 60 s.
    pub keepalive_interval: Duration,
    /// `keepalive_timeout`: how long the answer to that may take before the connection counts as dead. Default 20 s.
    pub keepalive_timeout: Duration,
    /// `reconnect_min`: the wait before the first attempt to connect again; it doubles from there. Default 500 ms.
    pub reconnect_min: Duration,
    /// `reconnect_max`: the longest wait between two attempts; at least `reconnect_min`. Default 30 s.
    pub reconnect_max: Duration,
    /// `drain_timeout`: how long a shutdown may take to finish what was accepted. Default 20 s.
    pub drain_timeout: Duration,
}

/// `[limits]`: what one inbound stanza may cost. A stanza beyond is refused alone; the stream goes on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Bytes of the whole stanza, 10,000 (RFC 6120 §13.12) to 16 MiB. Default 524,288: what Prosody lets a server send.
    #[serde(deserialize_with = "within::<_, _, 10_000, 16_777_216>")]
    pub stanza_bytes: usize,
    /// Nesting, the stanza itself being 1; 16 to 256. Default 64.
    #[serde(deserialize_with = "within::<_, _, 16, 256>")]
    pub depth: usize,
    /// Elements in the stanza, itself included; 256 to 1,000,000. Default 16,384.
    #[serde(deserialize_with = "within::<_, _, 256, 1_000_000>")]
    pub elements: usize,
    /// Attributes of one element, namespace declarations included; 8 to 256. Default 32.
    #[serde(deserialize_with = "within::<_, _, 8, 256>")]
    pub attributes: usize,
    /// Bytes of one attribute with its name; 3,100 (room for the longest JID, RFC 7622 §3.1) to 8,192. Default 8,192.
    #[serde(deserialize_with = "within::<_, _, 3_100, 8_192>")]
    pub attribute_bytes: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { stanza_bytes: 512 * 1024, depth: 64, elements: 16_384, attributes: 32, attribute_bytes: 8_192 }
    }
}

/// `[directory]`: devices and prekeys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectorySettings {
    /// Devices in one list, per owner and protocol; 1 to 500. Default 32.
    #[serde(deserialize_with = "within::<_, _, 1, 500>")]
    pub max_devices: usize,
    /// Within this time the same requester gets the same prekey again; clients fetch far more often than they use.
    /// `"0s"` turns that off. Default 24 h.
    #[serde(deserialize_with = "duration_or_zero")]
    pub repeat_window: Duration,
    /// Prekeys of one device that one account gets in 24 hours, over all its sessions and devices. A repeat within
    /// `repeat_window` never counts, nor does what the owner's own devices get. 1 to 1,000,000. Default 64.
    #[serde(deserialize_with = "within::<_, _, 1, 1_000_000>")]
    pub claims_per_device: u32,
    /// Prekeys that one account gets in 24 hours, of all devices; 1 to 1,000,000. Default 20,000.
    #[serde(deserialize_with = "within::<_, _, 1, 1_000_000>")]
    pub claims_per_requester: u32,
    /// Prekeys that all accounts of one foreign domain get in 24 hours; 1 to 100,000,000. Default 200,000.
    #[serde(deserialize_with = "within::<_, _, 1, 100_000_000>")]
    pub claims_per_domain: u32,
    /// The last so many prekeys of a device, but at most a fifth of its bundle, are for its owner's own devices and for those
    /// to whom the owner has written; strangers get them at `reserve_per_hour`. 0 to 250; 0: no reserve. Default 20.
    #[serde(deserialize_with = "within::<_, _, 0, 250>")]
    pub prekey_reserve: u32,
    /// Prekeys of one device's reserve that strangers get in an hour; 0 to 3,600. Default 12.
    #[serde(deserialize_with = "within::<_, _, 0, 3_600>")]
    pub reserve_per_hour: u32,
    /// A device is told once when it has this many unissued prekeys or fewer, and once more when it has none; 0 to 250.
    /// Default 20.
    #[serde(deserialize_with = "within::<_, _, 0, 250>")]
    pub low_stock: u32,
    /// Explicit subscriptions to one node; 0 to 100,000. Default 1,000.
    #[serde(deserialize_with = "within::<_, _, 0, 100_000>")]
    pub max_subscriptions: u32,
    /// `[directory.lifecycle]`.
    pub lifecycle: LifecycleSettings,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self {
            max_devices: 32,
            repeat_window: DAY,
            claims_per_device: 64,
            claims_per_requester: 20_000,
            claims_per_domain: 200_000,
            prekey_reserve: 20,
            reserve_per_hour: 12,
            low_stock: 20,
            max_subscriptions: 1_000,
            lifecycle: LifecycleSettings::default(),
        }
    }
}

/// `mode` of `[directory.lifecycle]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LifecycleMode {
    /// Nobody looks.
    Off,
    /// What would be done shows in the metrics; nothing is done.
    #[default]
    DryRun,
    /// It is done.
    On,
}

/// `[directory.lifecycle]`: devices that are dead are quarantined, and removed later (see docs/operations.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleSettings {
    /// `"off"`, `"dry-run"` or `"on"`. Default dry-run.
    pub mode: LifecycleMode,
    /// How long a device may be listed without a bundle before it is quarantined. Default 7 d.
    #[serde(deserialize_with = "duration")]
    pub bundle_grace: Duration,
    /// How long a device may go unseen, while another one of its list is seen, before it is quarantined. Default 90 d.
    #[serde(deserialize_with = "duration")]
    pub unseen_limit: Duration,
    /// How long a device stays in quarantine before it is removed. Default 30 d.
    #[serde(deserialize_with = "duration")]
    pub removal_delay: Duration,
    /// Signs of life of one device closer together than this are written as one. Default 1 h.
    #[serde(deserialize_with = "duration")]
    pub seen_granularity: Duration,
    /// How often all that is due is looked at. Default 1 h.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Devices looked at, or signs of life written, in one statement; 1 to 10,000. Default 500.
    #[serde(deserialize_with = "within::<_, _, 1, 10_000>")]
    pub batch: u32,
}

impl Default for LifecycleSettings {
    fn default() -> Self {
        let hour = Duration::from_secs(60 * 60);
        Self {
            mode: LifecycleMode::DryRun,
            bundle_grace: DAY.saturating_mul(7),
            unseen_limit: DAY.saturating_mul(90),
            removal_delay: DAY.saturating_mul(30),
            seen_granularity: hour,
            interval: hour,
            batch: 500,
        }
    }
}

/// `[archive]`: pages, the writer's queue, the purge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveSettings {
    /// Messages in a page when the client names no number; 1 to 1,000, but never more than `page_max`. Default 50.
    #[serde(deserialize_with = "within::<_, _, 1, 1_000>")]
    pub page_default: u32,
    /// Most messages in a page; 1 to 1,000. Default 100.
    #[serde(deserialize_with = "within::<_, _, 1, 1_000>")]
    pub page_max: u32,
    /// Most bytes of messages in a page, 16 KiB to 64 MiB; the first message is given even if it is larger. Default
    /// 1,048,576.
    #[serde(deserialize_with = "within::<_, _, 16_384, 67_108_864>")]
    pub page_bytes: usize,
    /// Messages that may wait to be written; when so many wait, reading from the server stops. 1 to 100,000. Default 1,024.
    #[serde(deserialize_with = "within::<_, _, 1, 100_000>")]
    pub ingest_queue: usize,
    /// Most messages written in one transaction; 1 to 1,024. Default 128.
    #[serde(deserialize_with = "within::<_, _, 1, 1_024>")]
    pub batch_max: usize,
    /// How long a message may wait for others to share its transaction; at most 1 s. Default 5 ms.
    #[serde(deserialize_with = "duration_or_zero")]
    pub batch_delay: Duration,
    /// How often expired messages are purged. They are hidden from the instant they expire. Default 60 s.
    #[serde(deserialize_with = "duration")]
    pub purge_interval: Duration,
    /// Messages purged in one transaction; 1 to 10,000. Default 500.
    #[serde(deserialize_with = "within::<_, _, 1, 10_000>")]
    pub purge_batch: u32,
    /// What a device is given of encrypted messages that have no header for it: `"keep"`, the whole message; `"trim"`, without
    /// the headers of others; `"omit"`, nothing once the device is listed. A query may choose otherwise. Default trim.
    pub unreadable: Unreadable,
    /// `[archive.retention]`.
    pub retention: RetentionSettings,
    /// `[archive.most]`.
    pub most: MostSettings,
    /// Classes of which a message goes once every listed device of its owner has read past it; of `"key_transport"`, those
    /// that it has a header for. Default none.
    #[serde(deserialize_with = "classes")]
    pub once_read: Vec<Class>,
    /// How often all archives are looked through for what `most` and `once_read` take out of them. Default 1 h.
    #[serde(deserialize_with = "duration")]
    pub retire_interval: Duration,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            page_default: 50,
            page_max: 100,
            page_bytes: 1024 * 1024,
            ingest_queue: 1_024,
            batch_max: 128,
            batch_delay: Duration::from_millis(5),
            purge_interval: Duration::from_secs(60),
            purge_batch: 500,
            unreadable: Unreadable::default(),
            retention: RetentionSettings::default(),
            most: MostSettings::default(),
            once_read: Vec::new(),
            retire_interval: Duration::from_secs(60 * 60),
        }
    }
}

/// `[archive.retention]`: how long messages are kept, by what they are: a time, `"forever"`, or `"none"` (not archived).
/// A change is for messages that come after it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Messages with an encrypted payload. Default 30 d.
    pub content: Keep,
    /// OMEMO messages without payload, which repair sessions. Keep them as long as `content`. Default 30 d.
    pub key_transport: Keep,
    /// Messages in clear. Default 30 d.
    pub plain: Keep,
    /// Receipts, markers and the like. Default 30 d.
    pub signal: Keep,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        let month = Keep::For(DAY.saturating_mul(30));
        Self { content: month, key_transport: month, plain: month, signal: month }
    }
}

/// `[archive.most]`: how many messages of each kind an archive keeps; 0: any number. The oldest go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MostSettings {
    /// Messages with an encrypted payload; at most 1,000,000,000. Default 0.
    #[serde(deserialize_with = "within::<_, _, 0, 1_000_000_000>")]
    pub content: u64,
    /// OMEMO messages without payload. Default 0.
    #[serde(deserialize_with = "within::<_, _, 0, 1_000_000_000>")]
    pub key_transport: u64,
    /// Messages in clear. Default 0.
    #[serde(deserialize_with = "within::<_, _, 0, 1_000_000_000>")]
    pub plain: u64,
    /// Receipts, markers and the like. Default 0.
    #[serde(deserialize_with = "within::<_, _, 0, 1_000_000_000>")]
    pub signal: u64,
}

/// `[plugin]`: the module in the server (docs/plugin-protocol.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginSettings {
    /// Whether the servers of `domains` are believed when they hand over copies of messages and requests of their users.
    /// Default true.
    pub enabled: bool,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[delegation]`: archives at the users' own addresses without a plugin (docs/delegation.md).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DelegationSettings {
    /// Whether MAM is taken over from the servers of `domains` that delegate it to us (XEP-0355). Default false.
    pub enabled: bool,
}

/// `[http]`: metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Where `/metrics`, `/healthz` and `/readyz` are served, without encryption or login: keep it on loopback or on a
    /// private network. Default `127.0.0.1:9614`.
    pub listen: SocketAddr,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9614)) }
    }
}

/// `[admin]`: who may work on the database from an XMPP client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Accounts of the domains served that may use the ad-hoc commands of the component (docs/operations.md). Default none.
    #[serde(deserialize_with = "accounts")]
    pub jids: BTreeSet<BareJid>,
}

/// `[metrics]`: figures that stand in the database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// How often they are read; reading takes at most a fifth of one connection. Default 60 s.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60) }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `"text"` or `"json"`. Default text.
    pub format: LogFormat,
    /// A level, or filter directives. No level shows keys, secrets or messages. Default info.
    pub level: LogLevel,
}
