//! Log lines on standard error, for people or for machines.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Comes before the operator's directives, which may say otherwise: a connection that the database has closed is replaced
/// without anybody noticing, and no news.
const QUIET: &str = "sqlx_core::pool=warn";

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is not one, although the configuration took it.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody in this process has set up logging before.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
    /// The level can no longer be changed.
    #[error("the level cannot be changed: {0}")]
    Fixed(#[from] reload::Error),
}

/// Changes the level while the program runs.
pub struct LogControl(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogControl {
    /// From now on.
    pub fn set_level(&self, level: &LogLevel) -> Result<(), LoggingError> {
        Ok((self.0)(filter(level)?)?)
    }
}

/// Sets up logging for the whole process. Once.
pub fn start(settings: &LogSettings) -> Result<LogControl, LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let lines = tracing_subscriber::fmt().with_env_filter(filter(&settings.level)?).with_writer(io::stderr);
    match settings.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            Ok(LogControl(Box::new(move |filter| handle.reload(filter))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            Ok(LogControl(Box::new(move |filter| handle.reload(filter))))
        }
    }
}

fn filter(level: &LogLevel) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!("{QUIET},{}", level.directives()))
}
