//! The wiring: builds every layer from the configuration, bottom up, and runs until it is told to stop.
//!
//! The order of the end is the point of this file: the link stops taking stanzas in; what was taken in is answered; the
//! writer stores what was accepted and its word is sent; only then does the stream close. A second signal, or the drain
//! timeout, cuts this short: then what was not yet stored was not acknowledged either.

mod live;

pub use live::retention;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jid::DomainPart;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::ad_hoc::AdHoc;
use crate::admin::forget_claims;
use crate::admin::last_run::{LastRun, LastRunError};
use crate::admin::life_cycle;
use crate::admin::purge::{self, PurgeSettings};
use crate::admin::retire;
use crate::archive::retire::Limits as ArchiveLimits;
use crate::archive::{Archive, ArchiveIds, ArchiveMetrics, Committed, Ingest, IngestSettings};
use crate::config::Config;
use crate::directory::{self, Directory, DirectoryMetrics};
use crate::door::alias::{AliasDoor, Aliases, MessageDoor, MessageServices};
use crate::door::delegation::{DelegationDoor, DelegationMetrics, DelegationServices, Grants};
use crate::door::dispatch::{self, Doors};
use crate::door::metrics::DoorMetrics;
use crate::door::notice::{NoticeMetrics, NoticeSender};
use crate::door::outcome::Accepted;
use crate::door::plugin::{CopyDoor, CopyServices, News, PluginDoor, Servers};
use crate::door::service::Service;
use crate::link::{Backoff, Keepalive, Limits, Link, LinkConfig, LinkError, LinkMetrics, LinkState, Outbox};
use crate::model::{Class, Clock, SystemClock};
use crate::ops;
use crate::ops::census::{Census, CensusMetrics};
use crate::ops::live_gauges::LiveGauges;
use crate::ops::queues::Queues;
use crate::ops::readiness::Readiness;
use crate::ops::reload::Reload;
use crate::ops::service_manager;
use crate::store::{self, SharedStore, StoreError};
use live::LiveSettings;

/// Stanzas that the link may have read before anybody has looked at them.
const INBOUND_QUEUE: usize = 256;

/// How long what still works may take once the link has ended. The link has waited for it as long as it may, so this is
/// more than enough unless the database is away: then it could be for ever.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why the program cannot run, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there, or the address is not ours.
    #[error("http.listen: cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The HTTP server, or the handling of signals.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Two metrics have the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The database cannot be used.
    #[error("database: {0}")]
    Store(#[from] StoreError),
    /// What the last run has written down cannot be read, or nothing written down.
    #[error(transparent)]
    LastRun(#[from] LastRunError),
    /// The server will never let us in as we are configured.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A part of the program has ended that should not have.
    #[error("{0} has failed: {1}")]
    Task(&'static str, #[source] tokio::task::JoinError),
}

/// Runs until SIGTERM or SIGINT, reading the configuration again at SIGHUP, or until the server refuses the secret.
pub async fn run(config: Config, reload: Reload) -> Result<(), ServeError> {
    let stop = ops::shutdown::on_signal()?;
    let registry = ops::metrics::registry()?;
    let live = LiveSettings::new(&config);
    let link_metrics = LinkMetrics::register(&registry)?;
    let archive_metrics = ArchiveMetrics::register(&registry)?;
    let directory_metrics = DirectoryMetrics::register(&registry)?;
    let notice_metrics = NoticeMetrics::register(&registry)?;
    let door_metrics = DoorMetrics::register(&registry)?;
    let delegation_metrics = DelegationMetrics::register(&registry)?;
    let census_metrics = CensusMetrics::register(&registry)?;
    let address = config.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })?;

    let store = open_store(&config).await?;
    store.metrics().register(&registry)?;
    ops::queues::register_connections(&registry, &store)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let last_run = LastRun::begin(&config.data_dir, store.clone(), clock.clone(), &registry).await?;
    let (ingest, committed) =
        Ingest::<Accepted, _>::start(store.clone(), ingest_settings(&config), archive_metrics.clone());

    let directory =
        Arc::new(Directory::new(store.clone(), clock.clone(), live.directory.clone(), directory_metrics.clone()));
    let archive = Archive::new(store.clone(), live.pages.clone(), clock.clone(), archive_metrics.clone())
        .with_unreadable(live.unreadable.clone())
        .with_retention(live.retention.clone());
    let aliases = Arc::new(Aliases::new(config.component_name.clone(), config.domains.iter().cloned()));
    let service = || Service::new(directory.clone(), archive.clone(), Box::new(ingest.clone()));
    let requests = AliasDoor::new(aliases.clone(), service());
    let delegated = service();
    let servers = Servers::new(config.domains.iter().filter(|_| config.plugin.enabled).cloned());
    let archive = Archive::new(store.clone(), live.plugin_pages.clone(), clock.clone(), archive_metrics.clone())
        .with_unreadable(live.unreadable.clone())
        .with_retention(live.retention.clone());
    let service = Service::new(directory.clone(), archive, Box::new(ingest.clone()));
    let news = News::new(servers.clone(), config.component_name.to_string());
    let plugin = PluginDoor::new(servers.clone(), aliases.clone(), service, news.clone());
    let ids = ArchiveIds::new(&store.archive_id_secret().await?);
    let copies = CopyServices {
        directory: directory.clone(),
        ids: ids.clone(),
        retention: live.retention.clone(),
        clock: clock.clone(),
        ingest: ingest.clone(),
        metrics: archive_metrics.clone(),
    };
    let copies = CopyDoor::new(servers, copies);
    let messages = MessageDoor::new(
        aliases.clone(),
        MessageServices {
            store: store.clone(),
            directory: directory.clone(),
            ids,
            retention: live.retention.clone(),
            clock: clock.clone(),
            ingest,
            metrics: archive_metrics.clone(),
        },
    );

    let (inbound, stanzas) = mpsc::channel(INBOUND_QUEUE);
    let unread = inbound.downgrade();
    let link = Link::start(link_config(&config), link_metrics, inbound, stop.clone());
    let queues = Queues::default()
        .with("inbound", INBOUND_QUEUE, move || {
            unread.upgrade().map_or(0, |queue| INBOUND_QUEUE.saturating_sub(queue.capacity()))
        })
        .with("outbound", link.outbox.limit(), link.outbox.length());
    show_queues(queues, &config, &registry, &door_metrics, &directory_metrics, &archive_metrics)?;
    let grants = Grants::new(link.state.clone());
    show_grants(&grants, &registry)?;
    let readiness = Readiness::default().state("link", link.state.clone(), link_trouble).database(store.clone()).state(
        "prekeys",
        last_run.doubt(),
        |doubt| {
            doubt.map(|doubt| {
                format!("{doubt}; no prekeys are handed out until `multiend admin restore-epoch` has been run")
            })
        },
    );
    let http_stop = CancellationToken::new();
    let http = tokio::spawn(ops::http::serve(listener, registry, readiness, http_stop.clone().cancelled_owned()));
    info!(%address, "serving /metrics, /healthz and /readyz");
    let (command_store, command_clock) = (store.clone(), clock.clone());
    let (purging, remembered) = (purge_settings(&config), live.remembered.clone());
    let forget = tokio::spawn(forget_claims::run(store.clone(), clock.clone(), remembered, purging, stop.clone()));
    let census = Census {
        store: store.clone(),
        clock: clock.clone(),
        metrics: census_metrics,
        archive: archive_metrics.clone(),
        interval: config.metrics.interval,
    };
    let census = tokio::spawn(census.run(stop.clone()));
    let (limits, interval) = (archive_limits(&config), config.archive.retire_interval);
    let retiring = retire::run(store.clone(), clock.clone(), limits, interval, archive_metrics.clone(), stop.clone());
    let retiring = tokio::spawn(retiring);
    let purge = tokio::spawn(purge::run(store, clock, purging, archive_metrics, stop.clone()));
    let last_run = tokio::spawn(last_run.run(move || directory_metrics.issued(), stop.clone()));
    let lives = tokio::spawn(life_cycle::run(directory.clone(), config.directory.lifecycle.interval, stop.clone()));
    let answers = tokio::spawn(send_outcomes(committed, link.outbox.clone()));
    let notices = NoticeSender {
        directory,
        addressing: aliases.clone(),
        news,
        outbox: link.outbox.clone(),
        link: link.state.clone(),
        metrics: notice_metrics,
    };
    let notices = tokio::spawn(notices.run(stop.clone()));
    let life = live.directory.clone();
    let commands = Box::new(AdHoc {
        component: config.component_name.clone(),
        administrators: live.administrators.clone(),
        store: command_store,
        clock: command_clock,
        max_devices: Box::new(move || life.with(|settings| settings.max_devices)),
        purge_batch: config.archive.purge_batch,
    });
    let delegation = DelegationDoor::new(DelegationServices {
        enabled: config.delegation.enabled,
        servers: Servers::new(config.domains.iter().cloned()),
        aliases,
        service: delegated,
        grants,
        metrics: delegation_metrics,
        stop: stop.clone(),
    });
    let doors = Doors { requests, messages, plugin, copies, delegation, commands, metrics: door_metrics };
    let doors = tokio::spawn(dispatch::run(stanzas, link.outbox.clone(), doors));

    let reload = tokio::spawn(reload.run(move |config| live.apply(config), stop.clone()));
    service_manager::ready();
    let manager = tokio::spawn(service_manager::report(link.state.clone(), stop.clone()));

    // The link ends when nobody can send any more: when the doors and the writer have finished.
    drop(link.outbox);
    let linked = link.finished.await.map_err(|error| ServeError::Task("the link", error))?;
    stop.cancel();
    let rest = async {
        doors.await.map_err(|error| ServeError::Task("a door", error))?;
        answers.await.map_err(|error| ServeError::Task("the sending of what was stored", error))?;
        notices.await.map_err(|error| ServeError::Task("the sending of notices", error))?;
        forget.await.map_err(|error| ServeError::Task("the forgetting of claims", error))?;
        last_run.await.map_err(|error| ServeError::Task("the watch over the database", error))?;
        census.await.map_err(|error| ServeError::Task("the reading of figures", error))?;
        reload.await.map_err(|error| ServeError::Task("the reading of the configuration", error))?;
        lives.await.map_err(|error| ServeError::Task("the life cycle of devices", error))?;
        retiring.await.map_err(|error| ServeError::Task("the taking out of messages", error))?;
        purge.await.map_err(|error| ServeError::Task("the purge", error))
    };
    match timeout(LAST_WAIT, rest).await {
        Ok(ended) => ended?,
        Err(_) => warn!("stopping although not everything accepted could be stored; none of that was acknowledged"),
    }
    manager.abort();
    http_stop.cancel();
    http.await.map_err(|error| ServeError::Task("the HTTP server", error))??;
    linked?;
    info!("stopped");
    Ok(())
}

/// Opens the database. One without a schema is given it, so that a first start needs no other command; one with another
/// schema is left alone (`multiend migrate`).
async fn open_store(config: &Config) -> Result<SharedStore, StoreError> {
    let url = config.database.expose();
    match store::open(url, config.database_pool).await {
        Err(StoreError::Schema { found: 0, .. }) => {
            info!(database = %config.database, "setting up an empty database");
            store::migrate(url).await?;
            store::open(url, config.database_pool).await
        }
        opened => opened,
    }
}

/// Sends what follows from each stored message, in the order stored.
async fn send_outcomes(mut committed: mpsc::Receiver<Committed<Accepted>>, outbox: Outbox) {
    while let Some(message) = committed.recv().await {
        for stanza in Accepted::outcome(message) {
            if let Err(error) = outbox.send(Bytes::from(stanza)).await {
                tracing::debug!(%error, "a stored message is not relayed, the archive has it");
            }
        }
    }
}

/// Makes the queues visible, those of the link and the others.
fn show_queues(
    queues: Queues,
    config: &Config,
    registry: &Registry,
    doors: &DoorMetrics,
    directory: &DirectoryMetrics,
    archive: &ArchiveMetrics,
) -> Result<(), prometheus::Error> {
    let (doors, directory, storing, stored) = (doors.clone(), directory.clone(), archive.clone(), archive.clone());
    queues
        .with("requests", dispatch::REQUESTS_WAITING, move || doors.waiting())
        .with("claims", directory::CLAIMS_WAITING, move || directory.claims_waiting())
        .with("archive", config.archive.ingest_queue, move || storing.waiting())
        .register(registry)?;
    registry.register(Box::new(LiveGauges::single(
        "multiend_archive_oldest_waiting_seconds",
        "How long the oldest of the messages has waited that are being stored now; 0: none is",
        move || stored.oldest_waiting().as_secs_f64(),
    )?))
}

/// Makes visible what servers have granted to the delegation door.
fn show_grants(grants: &Grants, registry: &Registry) -> Result<(), prometheus::Error> {
    let (archives, messages) = (grants.clone(), grants.clone());
    let gauges = LiveGauges::new(
        "multiend_delegation_servers",
        "Servers that grant this to the delegation door on the connection that stands: MAM, or messages in their users' names",
        "grant",
    )?;
    let gauges = gauges.with("archives", move || f64::from(archives.archives_granted()));
    let gauges = gauges.with("messages", move || f64::from(messages.messages_granted()));
    registry.register(Box::new(gauges))
}

fn link_trouble(state: &LinkState) -> Option<String> {
    match state {
        LinkState::Up => None,
        LinkState::Connecting => Some("connecting to the server".to_owned()),
        LinkState::Down { reason } => Some(reason.to_string()),
    }
}

/// How the server is reached.
pub(crate) fn link_config(config: &Config) -> LinkConfig {
    // Any domain that the server hosts will answer a ping; without users' domains there is nobody to serve anyway.
    let server_domain: DomainPart = config.domains.first().unwrap_or(&config.component_name).clone();
    let (component, limits) = (&config.component, &config.limits);
    LinkConfig {
        limits: Limits {
            stanza_bytes: limits.stanza_bytes,
            depth: limits.depth,
            elements: limits.elements,
            attributes: limits.attributes,
            attribute_bytes: limits.attribute_bytes,
        },
        keepalive: Keepalive { interval: component.keepalive_interval, timeout: component.keepalive_timeout },
        backoff: Backoff { initial: component.reconnect_min, longest: component.reconnect_max },
        drain_timeout: component.drain_timeout,
        ..LinkConfig::new(
            component.server.to_string(),
            config.component_name.clone(),
            server_domain,
            config.component_secret.clone(),
        )
    }
}

fn ingest_settings(config: &Config) -> IngestSettings {
    IngestSettings {
        queue: config.archive.ingest_queue,
        batch_max: config.archive.batch_max,
        batch_delay: config.archive.batch_delay,
        ..IngestSettings::default()
    }
}

fn purge_settings(config: &Config) -> PurgeSettings {
    PurgeSettings { batch: config.archive.purge_batch, interval: config.archive.purge_interval }
}

fn archive_limits(config: &Config) -> ArchiveLimits {
    let most = &config.archive.most;
    let most = [
        (Class::Content, most.content),
        (Class::KeyTransport, most.key_transport),
        (Class::Plain, most.plain),
        (Class::Signal, most.signal),
    ];
    ArchiveLimits {
        most: most.into_iter().filter(|(_, most)| *most > 0).collect(),
        once_read: config.archive.once_read.clone(),
    }
}
