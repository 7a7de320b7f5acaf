//! Servers with and without an archive, set up alike: what differs is the archive.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::ejabberd::Ejabberd;
use crate::support::multiend::Multiend;
use crate::support::plugin;
use crate::support::postgres::{Fsync, Postgres};
use crate::support::prosody::Prosody;

/// Where Debian puts ejabberd's tables.
const EJABBERD_SCHEMA: &str = "/usr/share/ejabberd/sql/pg.sql";

/// Whose archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Prosody,
    Ejabberd,
}

impl Server {
    pub const ALL: [Self; 2] = [Self::Prosody, Self::Ejabberd];

    pub fn name(self) -> &'static str {
        match self {
            Self::Prosody => "prosody",
            Self::Ejabberd => "ejabberd",
        }
    }
}

/// What keeps the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Archive {
    Nothing,
    /// The server's own, in its own files: those of Prosody, or Mnesia's.
    Internal,
    Sql,
    Plugin,
}

impl Archive {
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Internal, Self::Sql, Self::Plugin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no archive",
            Self::Internal => "own archive, files",
            Self::Sql => "own archive, PostgreSQL",
            Self::Plugin => "plugin",
        }
    }

    /// As it is called on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Internal => "files",
            Self::Sql => "sql",
            Self::Plugin => "plugin",
        }
    }
}

enum Running {
    Prosody(Prosody),
    Ejabberd(Ejabberd),
}

/// A server and what it needs. Everything ends when it is dropped.
pub struct Setup {
    server: Running,
    archive: Archive,
    pub multiend: Option<Multiend>,
    pub postgres: Postgres,
    url: String,
}

impl Setup {
    pub async fn start(server: Server, archive: Archive, users: &[&str]) -> Self {
        let postgres = Postgres::start(Fsync::On);
        let url = postgres.fresh_database().await;
        let server = match server {
            Server::Prosody => Running::Prosody(prosody(archive, users, &database_of(&url), postgres.port())),
            Server::Ejabberd => {
                if archive == Archive::Sql {
                    let schema = std::fs::read_to_string(EJABBERD_SCHEMA).expect("ejabberd is Debian's");
                    let mut connection = PgConnection::connect(&url).await.unwrap();
                    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut connection).await.unwrap();
                }
                Running::Ejabberd(ejabberd(archive, users, &database_of(&url), postgres.port()))
            }
        };
        let mut setup = Self { server, archive, multiend: None, postgres, url };
        if archive == Archive::Plugin {
            let builder = Multiend::builder(setup.component_port()).env("MULTIEND_LOG__LEVEL", "info");
            setup.multiend = Some(builder.database(&setup.url).start());
        }
        setup
    }

    pub fn pid(&self) -> u32 {
        match &self.server {
            Running::Prosody(server) => server.pid(),
            Running::Ejabberd(server) => server.pid(),
        }
    }

    pub fn c2s_port(&self) -> u16 {
        match &self.server {
            Running::Prosody(server) => server.c2s_port(),
            Running::Ejabberd(server) => server.c2s_port(),
        }
    }

    fn component_port(&self) -> u16 {
        match &self.server {
            Running::Prosody(server) => server.component_port(),
            Running::Ejabberd(server) => server.component_port(),
        }
    }

    /// How many copies are in the archive; `None` where nobody can be asked.
    pub async fn stored(&self) -> Option<u64> {
        let table = match (self.archive, &self.server) {
            (Archive::Plugin, _) => {
                let metric = "multiend_archive_copies_total{class=\"content\",result=\"stored\"}";
                return self.multiend.as_ref().map(|multiend| multiend.metric(metric) as u64);
            }
            (Archive::Sql, Running::Prosody(_)) => "prosodyarchive",
            (Archive::Sql, Running::Ejabberd(_)) => "archive",
            (Archive::Nothing | Archive::Internal, _) => return None,
        };
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!("select count(*) from {table}")));
        Some(query.fetch_one(&mut connection).await.unwrap().try_into().unwrap())
    }
}

fn prosody(archive: Archive, users: &[&str], database: &str, port: u16) -> Prosody {
    let own = |storage: &str| {
        let sql = format!(
            "sql = {{ driver = \"PostgreSQL\"; database = \"{database}\"; username = \"postgres\"; password = \"\"; \
             host = \"127.0.0.1\"; port = {port} }}"
        );
        Prosody::builder().users(users).module("mam").global(&sql).host(&format!(
            "archive_expires_after = \"never\"\nstorage = {{ archive = \"{storage}\" }}\ndefault_archive_policy = true"
        ))
    };
    match archive {
        Archive::Nothing => Prosody::builder().users(users).start(),
        Archive::Internal => own("internal").start(),
        Archive::Sql => own("sql").start(),
        Archive::Plugin => plugin::prosody(users).start(),
    }
}

fn ejabberd(archive: Archive, users: &[&str], database: &str, port: u16) -> Ejabberd {
    let own = |storage: &str| {
        Ejabberd::builder()
            .users(users)
            .module(&format!("  mod_mam:\n    default: always\n    assume_mam_usage: true\n    db_type: {storage}"))
    };
    match archive {
        Archive::Nothing => Ejabberd::builder().users(users).start(),
        Archive::Internal => own("mnesia").start(),
        Archive::Sql => own("sql")
            .top(&format!(
                "sql_type: pgsql\nsql_server: 127.0.0.1\nsql_port: {port}\nsql_database: {database}\n\
                 sql_username: postgres\nsql_password: \"\""
            ))
            .start(),
        Archive::Plugin => plugin::ejabberd(users, "").start(),
    }
}

/// The name of the database in a URL of the tests' PostgreSQL.
fn database_of(url: &str) -> String {
    let path = url.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
