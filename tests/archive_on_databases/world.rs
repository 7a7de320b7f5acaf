//! An archive with its writer on a database of its own, and a clock that stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jid::Jid;
use multiend::archive::archive_id::Named;
use multiend::archive::{
    Answer, Archive, ArchiveIds, ArchiveMetrics, Committed, Ingest, IngestHandle, IngestSettings, PageLimits,
    QueryError, Retention, Verdict, classify,
};
use multiend::model::{ArchivedMessage, Clock, Copy, Direction, Owner, Requester, Timestamp};
use multiend::stanza::ephemeral;
use multiend::stanza::mam::Query;
use multiend::stanza::message::Message;
use multiend::stanza::tree::Element;
use multiend::store::{self, Appended, SharedStore};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::postgres::Postgres;

pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// A clock that stands still until it is moved.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// An archive with its writer.
pub(crate) struct World {
    pub(crate) store: SharedStore,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ids: ArchiveIds,
    pub(crate) retention: Retention,
    pub(crate) archive: Archive,
    pub(crate) registry: prometheus::Registry,
    pub(crate) metrics: ArchiveMetrics,
    pub(crate) ingest: IngestHandle<()>,
    pub(crate) committed: mpsc::Receiver<Committed<()>>,
    _directory: TempDir,
}

impl World {
    pub(crate) async fn new(database: Database, limits: PageLimits, retention: Retention) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = match database {
            Database::Sqlite => format!("sqlite:{}", directory.path().join("multiend.db").display()),
            Database::Postgres => Postgres::shared().fresh_database().await,
        };
        store::migrate(&url).await.unwrap();
        let store = store::open(&url, 4).await.unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_700_000_000_000_000)));
        let registry = prometheus::Registry::new();
        let metrics = ArchiveMetrics::register(&registry).unwrap();
        let (ingest, committed) = Ingest::start(store.clone(), IngestSettings::default(), metrics.clone());
        Self {
            archive: Archive::new(store.clone(), limits, clock.clone(), metrics.clone()),
            ids: ArchiveIds::new(&store.archive_id_secret().await.unwrap()),
            store,
            clock,
            retention,
            registry,
            metrics,
            ingest,
            committed,
            _directory: directory,
        }
    }

    /// A message as it comes in, archived for both sides; gives back what became of the two copies.
    pub(crate) async fn receive(&mut self, stanza: &str) -> Vec<Appended> {
        let tree = Element::parse(stanza.as_bytes()).unwrap();
        let Verdict::Archive(class) = classify(&tree) else { panic!("not archived: {stanza}") };
        let message = Message::split(&tree, &[]).unwrap();
        let (from, to) = (message.from.unwrap(), message.to.unwrap());
        let at = self.clock.now();
        let expires_at = self.retention.expires_at(class, at, ephemeral::timer(&tree));
        let copy = |own: &Jid, peer: &Jid, direction| {
            let owner = Owner::new(own.to_bare()).unwrap();
            let named = Named {
                owner: &owner,
                sender: &from.to_bare(),
                recipient: &to.to_bare(),
                stanza_id: message.id.as_deref(),
                content: &message.body,
            };
            Copy {
                archive_id: self.ids.id(&named).unwrap(),
                owner,
                direction,
                peer: peer.clone(),
                own_resource: own.resource().map(|resource| resource.as_str().to_owned()),
                expires_at,
            }
        };
        let copies = vec![copy(&from, &to, Direction::Sent), copy(&to, &from, Direction::Received)];
        let archived = ArchivedMessage {
            class,
            at,
            body: message.body.clone(),
            origin: None,
            retracts: None,
            copies,
            key_exchanges: Vec::new(),
        };
        self.ingest.submit(archived, ()).await.unwrap();
        let committed = tokio::time::timeout(DEADLINE, self.committed.recv()).await.unwrap().unwrap();
        committed.result.unwrap()
    }

    /// Whether the metrics have this line.
    pub(crate) fn shows(&self, line: &str) -> bool {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().any(|shown| shown == line)
    }

    pub(crate) async fn ask(&self, requester: &str, query: &str) -> Result<Answer, QueryError> {
        let source = format!("<query xmlns='urn:xmpp:mam:2'>{query}</query>");
        let query = Query::parse(&Element::parse(source.as_bytes()).unwrap())?;
        let requester = Requester::parse(requester).unwrap();
        let owner = Owner::new(requester.jid().to_bare()).unwrap();
        self.archive.query(&owner, &requester, &query).await
    }
}
