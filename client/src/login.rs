//! Connecting and logging in, again and again until it works or the password proves wrong.

use std::time::Duration;

use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_xmpp::error::AuthError;
use tokio_xmpp::stanzastream::Connection;
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, initiate_stream};
use xmpp_parsers::jid::Jid;

use crate::settings::Settings;
use crate::xml::ns;

/// The pause after the first failed attempt; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(20);

/// What the stanza stream calls for each new connection.
pub(crate) type Connector = Box<dyn FnMut(Option<String>, oneshot::Sender<Connection>) + Send + 'static>;

/// A connector for `settings`. `refused` is called when the server does not accept the login; no further attempt follows.
pub(crate) fn connector(settings: Settings, refused: impl Fn(String) + Clone + Send + 'static) -> Connector {
    Box::new(move |_location, slot| {
        tokio::spawn(connect(settings.clone(), refused.clone(), slot));
    })
}

async fn connect(settings: Settings, refused: impl Fn(String), mut slot: oneshot::Sender<Connection>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let attempt = tokio::time::timeout(ATTEMPT, log_in(&settings));
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            () = slot.closed() => return,
        };
        match outcome {
            Ok(Ok(connection)) => {
                let _ = slot.send(connection);
                return;
            }
            Ok(Err(tokio_xmpp::Error::Auth(AuthError::Fail(condition)))) => {
                refused(format!("{condition:?}"));
                // The stream ends when the slot is dropped; whoever waits has been told.
                slot.closed().await;
                return;
            }
            Ok(Err(error)) => tracing::debug!(server = %settings.server, %error, "could not connect"),
            Err(_) => tracing::debug!(server = %settings.server, "connecting took too long"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = slot.closed() => return,
        }
        pause = pause.saturating_mul(2).min(settings.patience.reconnect);
    }
}

/// One attempt: TCP, stream header, SASL, stream header. Binding is the stanza stream's part.
async fn log_in(settings: &Settings) -> Result<Connection, tokio_xmpp::Error> {
    let account = &settings.account;
    let identity = account.with_resource_str(&settings.resource).map_or_else(|_| Jid::from(account.clone()), Jid::from);
    let tcp = TcpStream::connect(settings.server).await?;
    tcp.set_nodelay(true)?;
    let header = || StreamHeader { to: Some(account.domain().as_str().to_owned().into()), from: None, id: None };
    let stream = initiate_stream(BufStream::new(tcp), ns::CLIENT, header(), Timeouts::tight()).await?;
    let (features, stream) = stream.recv_features().await?;
    let name = account.node().map(|node| node.as_str().to_owned()).unwrap_or_default();
    let credentials = sasl::common::Credentials::default().with_username(name).with_password(settings.password.clone());
    let stream = tokio_xmpp::client_login(stream, features.sasl_mechanisms, credentials).await?;
    let stream = stream.send_header(header()).await?;
    let (features, stream) = stream.recv_features().await?;
    Ok(Connection { stream: stream.box_stream(), features, identity })
}
