//! Running commands of an ejabberd without its `ejabberdctl`, which insists on Debian's user and node: through its HTTP API,
//! which runs the same commands.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::ejabberd::Builder;
use crate::support::ports::{free_port, loopback};

/// A command may move many messages.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where an ejabberd takes commands.
pub struct Commands {
    port: u16,
}

impl Commands {
    /// A way in for a server that is still to be configured.
    pub fn new() -> Self {
        Self { port: free_port() }
    }

    /// Adds it to the configuration; to be called before anything else is added at its top level.
    pub fn allowed(&self, builder: Builder) -> Builder {
        builder.top(&format!(
            "  -
    port: {}
    ip: 127.0.0.1
    module: ejabberd_http
    request_handlers: {{/api: mod_http_api}}
api_permissions:
  tests: {{from: mod_http_api, who: {{ip: 127.0.0.1/8}}, what: \"*\"}}",
            self.port
        ))
    }

    /// Runs a command with named arguments: what it says, or with which error it failed.
    pub fn run(&self, name: &str, arguments: &[(&str, &str)]) -> Result<String, String> {
        let arguments: serde_json::Map<_, _> =
            arguments.iter().map(|(name, value)| (name.to_string(), serde_json::Value::from(*value))).collect();
        let body = serde_json::Value::from(arguments).to_string();
        let mut stream = TcpStream::connect(loopback(self.port)).expect("it takes commands");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        write!(
            stream,
            "POST /api/{name} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        let said = match serde_json::from_str(body) {
            Ok(serde_json::Value::String(text)) => text,
            _ => body.to_owned(),
        };
        if head.split(' ').nth(1) == Some("200") { Ok(said) } else { Err(said) }
    }
}
