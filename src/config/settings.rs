//! The whole configuration: as it stands in the file, and as the program uses it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jid::DomainPart;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::problem::Problem;
use super::sections::{
    AdminSettings, ArchiveSettings, ComponentSettings, DelegationSettings, DirectorySettings, HttpSettings,
    LimitSettings, LogSettings, MetricsSettings, PluginSettings,
};
use super::values::{self, DatabaseUrl, ServerAddress, duration, within};

/// Longest secret or URL that a file may hold, in bytes.
const MAX_SECRET_BYTES: u64 = 4_096;
/// A message must not wait longer than this for others.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `data_dir`: where the SQLite database lies, and what was last run on. Default `data`.
    pub data_dir: PathBuf,
    /// `database` or the file that `database_file` names. Default: SQLite under `data_dir`.
    pub database: DatabaseUrl,
    /// `database_pool`: connections to PostgreSQL; 1 to 500. Default 10.
    pub database_pool: u32,
    /// `domains`: whose users are served. Owners exist only here. At least one.
    pub domains: BTreeSet<DomainPart>,
    /// `component.name`: the JID of the component. Required.
    pub component_name: DomainPart,
    /// `component.secret` or the file that `component.secret_file` names. Required.
    pub component_secret: SecretString,
    /// `[component]`, the rest of it.
    pub component: ComponentSettings,
    /// `[limits]`.
    pub limits: LimitSettings,
    /// `[directory]`.
    pub directory: DirectorySettings,
    /// `[archive]`.
    pub archive: ArchiveSettings,
    /// `[plugin]`.
    pub plugin: PluginSettings,
    /// `[delegation]`.
    pub delegation: DelegationSettings,
    /// `[http]`.
    pub http: HttpSettings,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[metrics]`.
    pub metrics: MetricsSettings,
    /// `[log]`.
    pub log: LogSettings,
}

/// A few lines for a person, without secrets.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domains: Vec<&str> = self.domains.iter().map(|domain| domain.as_str()).collect();
        writeln!(f, "component {} at {}", self.component_name, self.component.server)?;
        writeln!(f, "domains   {}", domains.join(", "))?;
        writeln!(f, "database  {}", self.database)?;
        write!(f, "http      {}", self.http.listen)
    }
}

/// The file, key by key, before what spans several keys is checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    data_dir: PathBuf,
    #[serde(deserialize_with = "values::secret")]
    database: Option<SecretString>,
    database_file: Option<PathBuf>,
    #[serde(deserialize_with = "within::<_, _, 1, 500>")]
    database_pool: u32,
    #[serde(deserialize_with = "values::domains")]
    domains: Option<Vec<DomainPart>>,
    component: ComponentTable,
    limits: LimitSettings,
    directory: DirectorySettings,
    archive: ArchiveSettings,
    plugin: PluginSettings,
    delegation: DelegationSettings,
    http: HttpSettings,
    admin: AdminSettings,
    metrics: MetricsSettings,
    log: LogSettings,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            database: None,
            database_file: None,
            database_pool: 10,
            domains: None,
            component: ComponentTable::default(),
            limits: LimitSettings::default(),
            directory: DirectorySettings::default(),
            archive: ArchiveSettings::default(),
            plugin: PluginSettings::default(),
            delegation: DelegationSettings::default(),
            http: HttpSettings::default(),
            admin: AdminSettings::default(),
            metrics: MetricsSettings::default(),
            log: LogSettings::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ComponentTable {
    server: ServerAddress,
    #[serde(deserialize_with = "values::domain")]
    name: Option<DomainPart>,
    #[serde(deserialize_with = "values::secret")]
    secret: Option<SecretString>,
    secret_file: Option<PathBuf>,
    #[serde(deserialize_with = "duration")]
    keepalive_interval: Duration,
    #[serde(deserialize_with = "duration")]
    keepalive_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    reconnect_min: Duration,
    #[serde(deserialize_with = "duration")]
    reconnect_max: Duration,
    #[serde(deserialize_with = "duration")]
    drain_timeout: Duration,
}

impl Default for ComponentTable {
    fn default() -> Self {
        Self {
            server: ServerAddress::loopback(5347),
            name: None,
            secret: None,
            secret_file: None,
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl ConfigFile {
    /// Reads the files that hold secrets and checks what spans several keys. All problems are found at once.
    pub(super) fn check(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let database = self.database(&mut problems);
        let component_secret = self.component.secret(&mut problems);
        let domains: BTreeSet<DomainPart> = self.domains.unwrap_or_default().into_iter().collect();
        if domains.is_empty() {
            problems.push(Problem::at("domains", "name the domains whose users are served, as [\"example.org\"]"));
        }
        if self.component.name.is_none() {
            problems.push(Problem::at("component.name", "name the component, as \"multiend.example.org\""));
        }
        if self.component.name.as_ref().is_some_and(|name| domains.contains(name)) {
            problems.push(Problem::at("component.name", "the component cannot be one of the domains that it serves"));
        }
        let is_served = |jid: &jid::BareJid| domains.iter().any(|domain| domain.as_str() == jid.domain().as_str());
        if !domains.is_empty() && !self.admin.jids.iter().all(is_served) {
            problems.push(Problem::at("admin.jids", "name accounts of the domains that are served, and no others"));
        }
        if self.component.reconnect_max < self.component.reconnect_min {
            problems.push(Problem::at("component.reconnect_max", "must not be less than component.reconnect_min"));
        }
        if self.archive.batch_delay > MAX_BATCH_DELAY {
            problems.push(Problem::at("archive.batch_delay", "must not be more than one second"));
        }
        let lifecycle = &self.directory.lifecycle;
        if lifecycle.seen_granularity >= lifecycle.unseen_limit {
            let text = "must be less than directory.lifecycle.unseen_limit: a device that is seen all the time would count \
                        as unseen";
            problems.push(Problem::at("directory.lifecycle.seen_granularity", text));
        }
        let (Some(database), Some(component_secret), Some(component_name), true) =
            (database, component_secret, self.component.name, problems.is_empty())
        else {
            return Err(problems);
        };
        Ok(Config {
            data_dir: self.data_dir,
            database,
            database_pool: self.database_pool,
            domains,
            component_name,
            component_secret,
            component: ComponentSettings {
                server: self.component.server,
                keepalive_interval: self.component.keepalive_interval,
                keepalive_timeout: self.component.keepalive_timeout,
                reconnect_min: self.component.reconnect_min,
                reconnect_max: self.component.reconnect_max,
                drain_timeout: self.component.drain_timeout,
            },
            limits: self.limits,
            directory: self.directory,
            archive: ArchiveSettings {
                page_default: self.archive.page_default.min(self.archive.page_max),
                ..self.archive
            },
            plugin: self.plugin,
            delegation: self.delegation,
            http: self.http,
            admin: self.admin,
            metrics: self.metrics,
            log: self.log,
        })
    }

    fn database(&self, problems: &mut Vec<Problem>) -> Option<DatabaseUrl> {
        let (key, text) = match (&self.database, &self.database_file) {
            (Some(_), Some(_)) => {
                problems.push(Problem::at("database_file", "give either this or database, not both"));
                return None;
            }
            (None, Some(path)) => ("database_file", read_secret("database_file", path, problems)?),
            (Some(text), None) => ("database", text.clone()),
            (None, None) => ("database", "sqlite".into()),
        };
        if text.expose_secret() == "sqlite" {
            return Some(DatabaseUrl::sqlite_in(&self.data_dir));
        }
        DatabaseUrl::parse(text.expose_secret()).map_err(|wrong| problems.push(Problem::at(key, wrong))).ok()
    }
}

impl ComponentTable {
    fn secret(&self, problems: &mut Vec<Problem>) -> Option<SecretString> {
        let (key, secret) = match (&self.secret, &self.secret_file) {
            (Some(_), Some(_)) => {
                problems.push(Problem::at("component.secret_file", "give either this or component.secret, not both"));
                return None;
            }
            (None, Some(path)) => {
                let key = "component.secret_file";
                (key, read_secret(key, path, problems)?)
            }
            (Some(secret), None) => ("component.secret", secret.clone()),
            (None, None) => {
                let missing = "give the secret that the server's configuration has for this component, here or in the file \
                               named by component.secret_file";
                problems.push(Problem::at("component.secret", missing));
                return None;
            }
        };
        if secret.expose_secret().is_empty() {
            problems.push(Problem::at(key, "the secret is empty"));
            return None;
        }
        Some(secret)
    }
}

/// Reads a secret from a file, without the line end that editors leave there.
fn read_secret(key: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<SecretString> {
    let read = || -> std::io::Result<Option<String>> {
        if std::fs::metadata(path)?.len() > MAX_SECRET_BYTES {
            return Ok(None);
        }
        std::fs::read_to_string(path).map(Some)
    };
    match read() {
        Ok(Some(text)) => return Some(text.trim_end_matches(['\n', '\r']).into()),
        Ok(None) => {
            problems.push(Problem::at(key, format!("{} has more than {MAX_SECRET_BYTES} bytes", path.display())))
        }
        Err(error) => problems.push(Problem::at(key, format!("cannot read {}: {error}", path.display()))),
    }
    None
}
