//! The configuration: `multiend.toml`, overridden key by key from the environment, with secrets also from files.
//!
//! Everything is checked here, once: what leaves this module is valid, and the layers that get it check nothing again.
//! What is wrong is reported with the key and, where it stands in the file, the line, and never with the value: it might
//! be a secret. `docs/multiend.example.toml` shows every key with its default.

mod environment;
mod given;
mod load;
mod position;
mod problem;
mod sections;
mod settings;
mod values;

pub use given::Given;
pub use load::{Loaded, load};
pub use problem::{ConfigError, Problem};
pub use sections::{
    AdminSettings, ArchiveSettings, ComponentSettings, DelegationSettings, DirectorySettings, HttpSettings,
    LifecycleMode, LifecycleSettings, LimitSettings, LogFormat, LogSettings, MetricsSettings, PluginSettings,
    RetentionSettings,
};
pub use settings::Config;
pub use values::{DatabaseKind, DatabaseUrl, LogLevel, ServerAddress};

#[cfg(test)]
mod tests;
