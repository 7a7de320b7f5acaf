//! What was asked for on the command line.

/// What there is to say when something was asked for that there is not.
pub const USAGE: &str = "usage: demo [--server prosody|ejabberd] [--door plugin|alias] [--clients multiend|slixmpp] \
                         [--database sqlite|postgres] [--keep]";

/// Where multiend keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Database {
    #[default]
    Sqlite,
    Postgres,
}

/// The XMPP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Server {
    #[default]
    Prosody,
    Ejabberd,
}

/// How clients reach multiend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At their own addresses, through the plugin in the server.
    Plugin,
    /// At the aliases of their addresses, with nothing installed in the server.
    Alias,
}

/// What the four devices run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clients {
    /// The reference client.
    #[default]
    Multiend,
    /// slixmpp with slixmpp-omemo as they are published, which know nothing of multiend.
    Slixmpp,
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub server: Server,
    pub way: Way,
    pub clients: Clients,
    pub database: Database,
    pub keep: bool,
}

impl Options {
    /// Reads the arguments.
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut server, mut clients, mut database) = <(Server, Clients, Database)>::default();
        let (mut way, mut keep) = (None, false);
        while let Some(argument) = arguments.next() {
            if argument == "--keep" {
                keep = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{argument} of what?"))?;
            match (argument.as_str(), value.as_str()) {
                ("--server", "prosody") => server = Server::Prosody,
                ("--server", "ejabberd") => server = Server::Ejabberd,
                ("--door", "plugin") => way = Some(Way::Plugin),
                ("--door", "alias") => way = Some(Way::Alias),
                ("--clients", "multiend") => clients = Clients::Multiend,
                ("--clients", "slixmpp") => clients = Clients::Slixmpp,
                ("--database", "sqlite") => database = Database::Sqlite,
                ("--database", "postgres") => database = Database::Postgres,
                _ => return Err(format!("there is no {argument} {value}")),
            }
        }
        let options = Self { server, way: way.unwrap_or(Way::Plugin), clients, database, keep };
        if options.way == Way::Alias && clients == Clients::Slixmpp {
            return Err(
                "clients that know nothing of multiend write to no aliases: --clients slixmpp needs --door plugin"
                    .to_owned(),
            );
        }
        Ok(options)
    }
}
