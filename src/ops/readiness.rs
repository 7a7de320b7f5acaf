//! Whether the program can do its work now: connected to the server, and with a database that answers.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::store::SharedStore;

/// A part that takes longer than this to answer is not ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A part of the program that can be up or down.
#[async_trait]
trait Part: Send + Sync {
    /// Why it is down, if it is.
    async fn trouble(&self) -> Option<String>;
}

/// The parts that must be up. Without any it is ready.
#[derive(Default)]
pub struct Readiness {
    parts: Vec<(&'static str, Box<dyn Part>)>,
}

/// A part that is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unready {
    /// Which part, as `component`.
    pub part: &'static str,
    /// Why.
    pub reason: String,
}

impl Readiness {
    /// Adds a part that tells its state through a channel; `trouble` says why a state is none to work in.
    pub fn state<T: Send + Sync + 'static>(
        mut self,
        part: &'static str,
        state: watch::Receiver<T>,
        trouble: impl Fn(&T) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.parts.push((part, Box::new(State { state, trouble })));
        self
    }

    /// Adds the database, which is asked each time.
    pub fn database(mut self, store: SharedStore) -> Self {
        self.parts.push(("database", Box::new(Database(store))));
        self
    }

    /// The parts that are down now.
    pub async fn unready(&self) -> Vec<Unready> {
        let mut unready = Vec::new();
        for (part, check) in &self.parts {
            let trouble = timeout(CHECK_TIMEOUT, check.trouble()).await;
            if let Some(reason) = trouble.unwrap_or_else(|_| Some("does not answer".to_owned())) {
                unready.push(Unready { part, reason });
            }
        }
        unready
    }
}

struct State<T, F> {
    state: watch::Receiver<T>,
    trouble: F,
}

#[async_trait]
impl<T: Send + Sync, F: Fn(&T) -> Option<String> + Send + Sync> Part for State<T, F> {
    async fn trouble(&self) -> Option<String> {
        if self.state.has_changed().is_err() {
            // Whoever told the state has ended, and with it the part.
            return Some("has ended".to_owned());
        }
        (self.trouble)(&self.state.borrow())
    }
}

struct Database(SharedStore);

#[async_trait]
impl Part for Database {
    async fn trouble(&self) -> Option<String> {
        self.0.ping().await.err().map(|error| error.to_string())
    }
}
