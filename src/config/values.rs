//! Values with rules of their own. Each parses from the text that stands in the file or in the environment.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, fs, io};

use crate::archive::Keep;
use crate::model::{Class, Unreadable};
use jid::{BareJid, DomainPart};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use sqlx::postgres::PgConnectOptions;

/// Where the server takes components: host and port. The host may be a name, an IPv4 or a bracketed IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    host: String,
    port: u16,
}

impl ServerAddress {
    /// A port of this machine.
    pub fn loopback(port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port }
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ServerAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write it as \"host:port\", for example \"127.0.0.1:5347\"";
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let has_colon = host.contains(':');
        if host.is_empty() || host.contains(char::is_whitespace) || has_colon != bracketed.is_some() {
            return Err(wrong);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A database: the URL that the store opens. It may hold a password, so it shows itself only redacted.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: SecretString,
    shown: String,
    /// The file, for SQLite.
    file: Option<PathBuf>,
}

/// Which database, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file.
    Sqlite(PathBuf),
    /// A database of a server.
    Postgres {
        /// Its name or address, or the directory of its socket.
        host: String,
        /// Its port.
        port: u16,
        /// Who logs in.
        user: String,
        /// Which of its databases.
        database: String,
    },
}

impl DatabaseUrl {
    /// The SQLite file in a data directory.
    pub fn sqlite_in(data_dir: &Path) -> Self {
        Self::sqlite(&data_dir.join("multiend.sqlite3").display().to_string())
    }

    /// Takes `postgres://…` (or `postgresql://…`), or `sqlite:PATH`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(text).map_err(|_| "not a valid PostgreSQL URL")?;
            let database = options.get_database().unwrap_or("the user's own database");
            let place = match options.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => format!("{}:{}", options.get_host(), options.get_port()),
            };
            return Ok(Self { url: text.into(), shown: format!("PostgreSQL, {database} at {place}"), file: None });
        }
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.trim_start_matches('/').is_empty() => Ok(Self::sqlite(path)),
            _ => Err("write \"sqlite\", \"sqlite:PATH\" or \"postgres://user:password@host/database\""),
        }
    }

    fn sqlite(path: &str) -> Self {
        Self { url: format!("sqlite:{path}").into(), shown: format!("SQLite, {path}"), file: Some(path.into()) }
    }

    /// Makes the directory of an SQLite file, for this user only, if there is none.
    pub fn create_directory(&self) -> io::Result<()> {
        match self.file.as_deref().and_then(Path::parent) {
            Some(dir) if !dir.as_os_str().is_empty() => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot make the directory {}: {error}", dir.display()))
                })
            }
            _ => Ok(()),
        }
    }

    /// Where it is, without its password.
    pub fn kind(&self) -> DatabaseKind {
        if let Some(path) = &self.file {
            return DatabaseKind::Sqlite(path.clone());
        }
        // It was parsed when it was made.
        let options = PgConnectOptions::from_str(self.url.expose_secret()).unwrap_or_default();
        let user = options.get_username().to_owned();
        DatabaseKind::Postgres {
            host: match options.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => options.get_host().to_owned(),
            },
            port: options.get_port(),
            database: options.get_database().unwrap_or(&user).to_owned(),
            user,
        }
    }

    /// The URL, with its password: for the store only.
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

/// A time, `forever`, or `none`.
impl FromStr for Keep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self::Forever),
            "none" => Ok(Self::Never),
            other => match parse_duration(other) {
                Ok(time) if !time.is_zero() => Ok(Self::For(time)),
                _ => Err("write a time such as \"30d\", or \"forever\", or \"none\""),
            },
        }
    }
}

/// `keep`, `trim` or `omit`.
impl FromStr for Unreadable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or("write \"keep\", \"trim\" or \"omit\"")
    }
}

/// What is logged: a level, or filter directives as `info,multiend::link=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The filter directives.
    pub fn directives(&self) -> &str {
        &self.0
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogLevel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write error, warn, info, debug or trace, or directives such as \"info,multiend::link=debug\"";
        // The filter takes any word for the name of a module; a level that is misspelled would silence everything.
        let names = text.split(',').filter(|directive| !directive.contains('='));
        let known = |name: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&name.trim());
        if !names.clone().all(known) || tracing_subscriber::EnvFilter::try_new(text).is_err() {
            return Err(wrong);
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! deserialize_from_text {
    ($($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}
deserialize_from_text!(ServerAddress, Keep, Unreadable, LogLevel);

/// Reads a string. Unlike serde's own, its error does not repeat what stands there instead.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text in quotes")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_i64<E: de::Error>(self, _: i64) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }
        fn visit_f64<E: de::Error>(self, _: f64) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }
        fn visit_bool<E: de::Error>(self, _: bool) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }
    }
    deserializer.deserialize_str(Text)
}

const NOT_TEXT: &str = "write it as a text, in quotes";

/// Reads classes of messages, by the names of their keys in `[archive.retention]`.
pub(super) fn classes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Class>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let class = |name: String| {
        let known = Class::ALL.into_iter().find(|class| class.name().replace('-', "_") == name);
        known.ok_or_else(|| de::Error::custom("the kinds of messages are content, key_transport, plain, signal"))
    };
    names.into_iter().map(class).collect()
}

/// Reads a secret.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    text(deserializer).map(|secret| Some(secret.into()))
}

/// Reads a time of more than zero, as `"24h"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match parse_duration(&text(deserializer)?) {
        Ok(time) if !time.is_zero() => Ok(time),
        Ok(_) => Err(de::Error::custom("must be more than zero")),
        Err(()) => Err(de::Error::custom("write a time with its unit: ms, s, m, h or d, as in \"90s\"")),
    }
}

/// Reads a time that may be zero, as `"0s"`.
pub(super) fn duration_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&text(deserializer)?)
        .map_err(|()| de::Error::custom("write a time with its unit: ms, s, m, h or d, as in \"5ms\""))
}

/// The longest time taken: what is longer is meant to be "forever".
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

fn parse_duration(text: &str) -> Result<Duration, ()> {
    // The library takes "1M" for a month and "1m" for a minute: the former is surely a mistake.
    if text.contains('M') {
        return Err(());
    }
    humantime::parse_duration(text).ok().filter(|time| *time <= MAX_DURATION).ok_or(())
}

/// Reads a number between `MIN` and `MAX`.
pub(super) fn within<'de, D, T, const MIN: u32, const MAX: u32>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u32>,
{
    let out_of_range = || de::Error::custom(format!("must be a whole number between {MIN} and {MAX}"));
    let number = i64::deserialize(deserializer).map_err(|_| out_of_range())?;
    let number = u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).ok_or_else(out_of_range)?;
    T::try_from(number).map_err(|_| out_of_range())
}

/// Reads a domain, normalised.
pub(super) fn domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DomainPart>, D::Error> {
    parse_domain(&text(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// Reads a list of domains, normalised.
pub(super) fn domains<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<DomainPart>>, D::Error> {
    let wrong = "write a list of domains, as [\"example.org\"]";
    let texts = Vec::<String>::deserialize(deserializer).map_err(|_| de::Error::custom(wrong))?;
    texts.iter().map(|text| parse_domain(text).map_err(de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

/// Reads a list of accounts, as `["admin@example.org"]`.
pub(super) fn accounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<BareJid>, D::Error> {
    let wrong = "write a list of accounts, as [\"admin@example.org\"]";
    let texts = Vec::<String>::deserialize(deserializer).map_err(|_| de::Error::custom(wrong))?;
    let account = |text: &String| BareJid::new(text).ok().filter(|jid| jid.node().is_some());
    texts.iter().map(|text| account(text).ok_or_else(|| de::Error::custom(wrong))).collect()
}

fn parse_domain(text: &str) -> Result<DomainPart, &'static str> {
    let wrong = "not the name of a domain";
    if text.contains(['@', '/']) || text.contains(char::is_whitespace) {
        return Err(wrong);
    }
    DomainPart::new(text).map(|domain| domain.into_owned()).map_err(|_| wrong)
}
