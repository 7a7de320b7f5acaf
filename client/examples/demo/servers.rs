//! The servers of the demonstration: Prosody, multiend, and PostgreSQL if asked for.

use crate::support::multiend::Multiend;
use crate::support::postgres::{Fsync, Postgres};
use crate::support::prosody::Prosody;
use crate::support::{COMPONENT, DOMAIN};

/// Where multiend keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// The running servers. Dropping them stops them and removes their directories.
pub struct Servers {
    pub multiend: Multiend,
    pub prosody: Prosody,
    postgres: Option<Postgres>,
    pub database_url: String,
}

impl Servers {
    /// Starts everything; returns when it is ready.
    pub async fn start(database: Database) -> Self {
        let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
        println!(
            "Prosody serves {DOMAIN} on 127.0.0.1:{} and takes components on {}.",
            prosody.c2s_port(),
            prosody.component_port()
        );
        let (postgres, builder) = (database == Database::Postgres)
            .then(|| Postgres::start(Fsync::On))
            .map_or((None, Multiend::builder(prosody.component_port())), |postgres| {
                (Some(postgres), Multiend::builder(prosody.component_port()))
            });
        let url = match &postgres {
            Some(postgres) => {
                println!("PostgreSQL listens on 127.0.0.1:{}.", postgres.port());
                Some(postgres.fresh_database().await)
            }
            None => None,
        };
        let multiend = match &url {
            Some(url) => builder.database(url).start(),
            None => builder.start(),
        };
        let database_url =
            url.unwrap_or_else(|| format!("sqlite:{}", multiend.data_dir().join("multiend.sqlite3").display()));
        println!("multiend is {COMPONENT}, the alias of alice@{DOMAIN} is alice\\40{DOMAIN}@{COMPONENT}.");
        Self { multiend, prosody, postgres, database_url }
    }

    /// Says where everything is and lets go of it.
    pub fn leave_running(mut self) {
        println!("\nEverything keeps running:");
        println!(
            "  clients         127.0.0.1:{} (no TLS; alice/alice and bob/bob at {DOMAIN})",
            self.prosody.c2s_port()
        );
        println!("  component       {COMPONENT} on 127.0.0.1:{}", self.prosody.component_port());
        println!("  metrics, health http://127.0.0.1:{}/metrics", self.multiend.http_port());
        println!("  configuration   {}", self.multiend.config_path().display());
        println!("  database        {}", self.database_url);
        println!("  Prosody         {}", self.prosody.config_path().display());
        let mut pids = vec![self.multiend.process().pid(), self.prosody.pid()];
        pids.extend(self.postgres.as_ref().map(Postgres::pid));
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        println!("  to stop it all  kill {}", pids.join(" "));
        // Neither the processes nor their directories end with this program.
        std::mem::forget(self);
    }
}
