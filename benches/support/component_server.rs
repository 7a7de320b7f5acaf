//! The side of an XMPP server that a component connects to (XEP-0114), and the batches of copies that its plugin sends: as
//! fast as they are answered, one of each domain at a time.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot};

/// A component that has connected.
#[derive(Clone)]
pub struct Component {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<String>>>>,
}

impl Component {
    /// Takes the next connection, whatever its secret.
    pub async fn accept(listener: &TcpListener) -> Self {
        let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut reader, mut writer) = stream.into_split();
        read_until(&mut reader, ">", 2).await;
        writer
            .write_all(
                b"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                  xmlns:stream='http://etherx.jabber.org/streams' from='multiend.example.org' id='bench'>",
            )
            .await
            .unwrap();
        read_until(&mut reader, "</handshake>", 1).await;
        writer.write_all(b"<handshake/>").await.unwrap();
        let this = Self { writer: Arc::new(Mutex::new(writer)), waiting: Arc::default() };
        tokio::spawn(this.clone().read(reader));
        this
    }

    /// Hands every answer to who waits for it, by its id.
    async fn read(self, mut reader: OwnedReadHalf) {
        let (mut buffer, mut chunk) = (String::new(), vec![0; 64 * 1024]);
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            buffer.push_str(&String::from_utf8_lossy(&chunk[..count]));
            while let Some(end) = buffer.find("</iq>") {
                let answer: String = buffer.drain(..end + 5).collect();
                let id = answer.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
                if let Some(waiting) = self.waiting.lock().await.remove(id) {
                    let _ = waiting.send(answer);
                }
            }
        }
    }

    /// Sends one batch and waits until all of it is durable.
    pub async fn send(&self, id: &str, stanza: &str) {
        let (answered, answer) = oneshot::channel();
        self.waiting.lock().await.insert(id.to_owned(), answered);
        self.writer.lock().await.write_all(stanza.as_bytes()).await.unwrap();
        let answer = answer.await.expect("the stream is open");
        assert!(answer.contains("type='result'") && !answer.contains("<refused"), "{answer}");
    }
}

async fn read_until(reader: &mut OwnedReadHalf, end: &str, times: usize) {
    let (mut seen, mut byte) = (String::new(), [0]);
    while seen.matches(end).count() < times {
        reader.read_exact(&mut byte).await.unwrap();
        seen.push(char::from(byte[0]));
    }
}
