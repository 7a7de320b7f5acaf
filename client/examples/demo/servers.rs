//! The servers of the demonstration: Prosody or ejabberd, multiend, and PostgreSQL if asked for.

use std::path::PathBuf;

use multiend_client::Door;

use crate::devices::World;
use crate::options::{Database, Options, Server, Way};
use crate::support::ejabberd::Ejabberd;
use crate::support::multiend::Multiend;
use crate::support::postgres::{Fsync, Postgres};
use crate::support::prosody::Prosody;
use crate::support::{COMPONENT, DOMAIN, plugin};

const USERS: [&str; 2] = ["alice", "bob"];

/// The XMPP server.
pub enum Host {
    Prosody(Prosody),
    Ejabberd(Ejabberd),
}

impl Host {
    fn start(options: Options) -> Self {
        match (options.server, options.way) {
            (Server::Prosody, Way::Plugin) => Self::Prosody(plugin::prosody(&USERS).start()),
            (Server::Prosody, Way::Alias) => Self::Prosody(Prosody::builder().users(&USERS).multiend().start()),
            (Server::Ejabberd, Way::Plugin) => Self::Ejabberd(plugin::ejabberd(&USERS, "").start()),
            (Server::Ejabberd, Way::Alias) => Self::Ejabberd(Ejabberd::builder().users(&USERS).multiend().start()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Prosody(_) => "Prosody",
            Self::Ejabberd(_) => "ejabberd",
        }
    }

    fn c2s_port(&self) -> u16 {
        match self {
            Self::Prosody(server) => server.c2s_port(),
            Self::Ejabberd(server) => server.c2s_port(),
        }
    }

    fn component_port(&self) -> u16 {
        match self {
            Self::Prosody(server) => server.component_port(),
            Self::Ejabberd(server) => server.component_port(),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Prosody(server) => server.pid(),
            Self::Ejabberd(server) => server.pid(),
        }
    }

    fn config_path(&self) -> PathBuf {
        match self {
            Self::Prosody(server) => server.config_path(),
            Self::Ejabberd(server) => server.config_path(),
        }
    }

    /// Where the server keeps what it writes itself, the plugin's journal included.
    fn data_path(&self) -> PathBuf {
        match self {
            Self::Prosody(server) => server.data_path(),
            Self::Ejabberd(server) => server.data_path(),
        }
    }
}

/// The running servers. Dropping them stops them and removes their directories.
pub struct Servers {
    pub multiend: Multiend,
    host: Host,
    way: Way,
    postgres: Option<Postgres>,
    pub database_url: String,
}

impl Servers {
    /// Starts everything; returns when it is ready.
    pub async fn start(options: Options) -> Self {
        let host = Host::start(options);
        println!(
            "{} serves {DOMAIN} on 127.0.0.1:{} and takes components on {}.",
            host.name(),
            host.c2s_port(),
            host.component_port()
        );
        let postgres = (options.database == Database::Postgres).then(|| Postgres::start(Fsync::On));
        let mut builder = Multiend::builder(host.component_port());
        let mut url = None;
        if let Some(postgres) = &postgres {
            println!("PostgreSQL listens on 127.0.0.1:{}.", postgres.port());
            let database = postgres.fresh_database().await;
            builder = builder.database(&database);
            url = Some(database);
        }
        let multiend = builder.start();
        let database_url =
            url.unwrap_or_else(|| format!("sqlite:{}", multiend.data_dir().join("multiend.sqlite3").display()));
        match options.way {
            Way::Plugin => {
                println!(
                    "multiend is {COMPONENT}; the plugin in {} brings it to every account's own address.",
                    host.name()
                );
            }
            Way::Alias => {
                println!("multiend is {COMPONENT}, the alias of alice@{DOMAIN} is alice\\40{DOMAIN}@{COMPONENT}.");
            }
        }
        Self { multiend, host, way: options.way, postgres, database_url }
    }

    /// The port for clients.
    pub fn c2s_port(&self) -> u16 {
        self.host.c2s_port()
    }

    /// Where devices log in, and how they reach multiend.
    pub fn world(&self) -> World {
        match self.way {
            Way::Plugin => World::new(self.c2s_port(), Door::Direct),
            Way::Alias => World::behind_component(self.c2s_port()),
        }
    }

    /// Where a user's directory and archive are, and messages to it go.
    pub fn address_of(&self, user: &str) -> String {
        match self.way {
            Way::Plugin => format!("{user}@{DOMAIN}"),
            Way::Alias => format!("{user}\\40{DOMAIN}@{COMPONENT}"),
        }
    }

    /// Every directory in which something of the users' may be.
    pub fn data_directories(&self) -> [PathBuf; 2] {
        [self.multiend.data_dir(), self.host.data_path()]
    }

    /// Says where everything is and lets go of it.
    pub fn leave_running(mut self) {
        println!("\nEverything keeps running:");
        println!("  clients         127.0.0.1:{} (no TLS; alice/alice and bob/bob at {DOMAIN})", self.c2s_port());
        println!("  component       {COMPONENT} on 127.0.0.1:{}", self.host.component_port());
        println!("  metrics, health http://127.0.0.1:{}/metrics", self.multiend.http_port());
        println!("  configuration   {}", self.multiend.config_path().display());
        println!("  database        {}", self.database_url);
        println!("  {:<15} {}", self.host.name(), self.host.config_path().display());
        let mut pids = vec![self.multiend.process().pid(), self.host.pid()];
        pids.extend(self.postgres.as_ref().map(Postgres::pid));
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        println!("  to stop it all  kill {}", pids.join(" "));
        // Neither the processes nor their directories end with this program.
        std::mem::forget(self);
    }
}
