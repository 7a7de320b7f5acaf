//! A service over a database of its own, for the tests of the doors.

use std::sync::Arc;

use prometheus::Registry;
use tempfile::TempDir;

use super::archive::Settled;
use super::service::Service;
use crate::archive::{Archive, ArchiveMetrics, PageLimits};
use crate::directory::{Directory, DirectoryMetrics, LifeSettings, Settings};
use crate::model::SystemClock;
use crate::store::{self, ClaimRules, SharedStore};

/// A database that is gone with the directory.
pub(super) async fn store() -> (SharedStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("db").display());
    store::migrate(&url).await.unwrap();
    (store::open(&url, 1).await.unwrap(), dir)
}

/// A service that counts into `registry`.
pub(super) fn service(store: SharedStore, registry: &Registry, settled: Box<dyn Settled>) -> Service {
    let settings = Settings {
        max_devices: 1,
        claims: ClaimRules::default(),
        domains: [].into(),
        max_subscriptions: 1,
        life: LifeSettings::default(),
    };
    let metrics = DirectoryMetrics::register(registry).unwrap();
    let directory = Directory::new(store.clone(), Arc::new(SystemClock), settings, metrics);
    let metrics = ArchiveMetrics::register(registry).unwrap();
    let archive = Archive::new(store, PageLimits::default(), Arc::new(SystemClock), metrics);
    Service::new(Arc::new(directory), archive, settled)
}
