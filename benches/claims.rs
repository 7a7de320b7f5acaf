//! How fast prekeys are handed out, beside the least that PostgreSQL could do: pgbench taking a row with `FOR UPDATE SKIP
//! LOCKED` from the same tables, in the same run, with fsync on.
//!
//! Each round runs pgbench, claims of one transaction each, and claims through the directory, which shares transactions, one
//! after the other; what counts is the ratio within a round, so that whatever else the machine does weighs on all three.
//! Over the whole run no key may be handed out twice, and no claim refused or given a last resort: stock is always left.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub
)]

#[path = "support/figures.rs"]
mod figures;

#[path = "../tests/support"]
#[allow(dead_code)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

use std::collections::HashSet;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use figures::{Figures, median};
use jid::DomainPart;
use multiend::directory::{BundleItem, Directory, DirectoryMetrics, LifeSettings, Settings, Wanted};
use multiend::model::{Claimant, Clock as _, DeviceId, Owner, Protocol, Requester, SystemClock};
use multiend::store::{self, Claim, ClaimKind, ClaimOutcome, ClaimRules, SharedStore};
use prometheus::Registry;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::postgres::{Fsync, Postgres};
use tokio::task::JoinSet;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEVICES: [u64; 3] = [1, 50, 20_000];
const REQUESTERS: [usize; 2] = [8, 64];
/// What the store keeps of a stock for claims that it looks at with care, with the default rules.
const REST: u64 = 21;
const ROUNDS: usize = 3;
/// How long each of the three runs in a round.
const TURN: Duration = Duration::from_secs(3);
/// Accounts that claim; each claim comes from a session of its own.
const ACCOUNTS: u64 = 20_000;
/// The connections that an instance has by default.
const POOL: u32 = 10;
/// What anybody sets who gives PostgreSQL a machine of its own. With its defaults, most of what is measured is how often
/// it writes whole pages.
const SERVER: [&str; 2] = ["shared_buffers=1GB", "max_wal_size=16GB"];
/// The planner settings of the store's connections.
const PLANNER: &str = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off";

fn main() {
    // `cargo test` builds benchmarks, and has nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let postgres = Postgres::start_with(Fsync::On, &SERVER);
    let mut figures = Figures::default();
    let mut faults = 0;
    for devices in DEVICES {
        let bench = Bench::prepare(&postgres, devices).await;
        for requesters in REQUESTERS {
            bench.measure(requesters, &mut figures).await;
        }
        faults += bench.faults().await;
    }
    figures.none("keys handed out twice, or not though stock was left", faults);
    figures.write("claims");
}

/// One database, and what was handed out from it.
struct Bench {
    url: String,
    devices: u64,
    next: Arc<AtomicU64>,
    handed: std::sync::Mutex<HashSet<(u64, Vec<u8>)>>,
    faults: AtomicU64,
}

/// What one way to claim did in one turn.
struct Turn {
    claims: usize,
    rate: f64,
    p99: f64,
}

impl Bench {
    async fn prepare(postgres: &Postgres, devices: u64) -> Self {
        let url = postgres.fresh_database().await;
        store::migrate(&url).await.unwrap();
        // More than a fast machine hands out in all the turns.
        let prekeys = (900_000 / devices).max(60);
        let mut admin = PgConnection::connect(&url).await.unwrap();
        for statement in [
            format!(
                "INSERT INTO account (jid, created_at) SELECT 'o' || n || '@example.org', 0 FROM generate_series(1, {devices}) n"
            ),
            format!(
                "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
                     signed_prekey, signed_prekey_signature, published_at, prekeys, plain_until, plain_rest, plain_upload)
                 SELECT id, 2, 1, '1', '<bundle/>', decode(repeat('01', 32), 'hex'), {prekeys}, 1,
                        decode(repeat('02', 32), 'hex'), decode(repeat('03', 64), 'hex'), 0, 100,
                        {prekeys} - {REST} + 1, {REST}, {prekeys} FROM account"
            ),
            format!(
                "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload)
                 SELECT id, 2, 1, decode(md5(id || '/' || n) || md5(n || '-' || id), 'hex'), n, n
                 FROM account, generate_series(1, {prekeys}) n"
            ),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
        }
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            sqlx::query(statement).execute(&mut admin).await.unwrap();
        }
        Self { url, devices, next: Arc::default(), handed: std::sync::Mutex::default(), faults: AtomicU64::new(0) }
    }

    async fn measure(&self, requesters: usize, figures: &mut Figures) {
        let (devices, mut rounds) = (self.devices, Vec::new());
        let single = store::open(&self.url, u32::try_from(requesters).unwrap()).await.unwrap();
        let shared = store::open(&self.url, POOL).await.unwrap();
        let registry = Registry::new();
        shared.metrics().register(&registry).unwrap();
        let directory = directory(shared);
        for _ in 0..ROUNDS {
            let pgbench = self.pgbench(requesters);
            let alone = self.turn(requesters, &Way::Alone(single.clone())).await;
            let together = self.turn(requesters, &Way::Together(directory.clone())).await;
            rounds.push((pgbench, alone, together));
        }
        let median = |of: fn(&(f64, Turn, Turn)) -> f64| median(rounds.iter().map(of));
        let name = |what: &str| format!("{devices} devices, {requesters} requesters: {what}");
        figures.plain(&name("pgbench"), median(|round| round.0), "claims/s");
        figures.plain(&name("single claims"), median(|round| round.1.rate), "claims/s");
        figures.plain(&name("single claims, p99"), median(|round| round.1.p99), "ms");
        figures.at_least(&name("single claims to pgbench"), median(|round| round.1.rate / round.0), "x", 0.8);
        figures.plain(&name("shared claims"), median(|round| round.2.rate), "claims/s");
        figures.plain(&name("shared claims, p99"), median(|round| round.2.p99), "ms");
        let claims: usize = rounds.iter().map(|round| round.2.claims).sum();
        let statements = operations(&registry, &["claim-one", "claim-batch"]);
        figures.plain(&name("shared claims in a statement"), claims as f64 / statements as f64, "claims");
        let with_care = operations(&registry, &["claim"]) as f64 / claims as f64;
        figures.plain(&name("shared claims that were looked at with care"), with_care * 100.0, "%");
        let ratio = median(|round| round.2.rate / round.0);
        if requesters >= 64 {
            figures.at_least(&name("shared claims to pgbench"), ratio, "x", 3.0);
        } else {
            figures.plain(&name("shared claims to pgbench"), ratio, "x");
        }
    }

    /// Claims a second of pgbench: one row out of the stock of any device, and nothing else.
    fn pgbench(&self, clients: usize) -> f64 {
        let mut script = tempfile::NamedTempFile::new().unwrap();
        write!(
            script,
            "\\set account random(1, {})\n\
             WITH picked AS MATERIALIZED (\
                 SELECT key FROM prekey WHERE account = :account AND protocol = 2 AND device = 1 AND issued_at IS NULL \
                 ORDER BY upload LIMIT 1 FOR UPDATE SKIP LOCKED) \
             UPDATE prekey p SET issued_at = 1, last_issued_at = 1 FROM picked \
             WHERE p.account = :account AND p.protocol = 2 AND p.device = 1 AND p.key = picked.key \
             RETURNING p.prekey_id, p.key;\n",
            self.devices
        )
        .unwrap();
        let output = Command::new(support::postgres::newest_binaries().join("pgbench"))
            .env("PGOPTIONS", PLANNER)
            .args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", "2", "-T", &TURN.as_secs().to_string()])
            .args(["-f", script.path().to_str().unwrap()])
            .arg(&self.url)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Claims by so many requesters at a time, each with one claim after the other.
    async fn turn(&self, requesters: usize, way: &Way) -> Turn {
        let (start, mut running) = (Instant::now(), JoinSet::new());
        for _ in 0..requesters {
            let (way, next, devices) = (way.clone(), self.next.clone(), self.devices);
            running.spawn(async move {
                let mut claimed = Vec::new();
                while start.elapsed() < TURN {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // Any device, each equally often.
                    let device = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % devices + 1;
                    let asked = Instant::now();
                    let key = way.claim(device, number).await;
                    claimed.push((device, key, asked.elapsed()));
                }
                claimed
            });
        }
        let claimed: Vec<_> = running.join_all().await.into_iter().flatten().collect();
        let elapsed = start.elapsed().as_secs_f64();
        let mut times: Vec<f64> = claimed.iter().map(|(_, _, time)| time.as_secs_f64() * 1_000.0).collect();
        times.sort_by(f64::total_cmp);
        let count = claimed.len();
        let mut handed = self.handed.lock().unwrap();
        for (device, key, _) in claimed {
            if key.is_none_or(|key| !handed.insert((device, key))) {
                self.faults.fetch_add(1, Ordering::Relaxed);
            }
        }
        Turn { claims: count, rate: count as f64 / elapsed, p99: times[count * 99 / 100] }
    }

    async fn faults(&self) -> u64 {
        let store = store::open(&self.url, 1).await.unwrap();
        let totals = store.directory_totals().await.unwrap();
        assert_eq!(totals.issued, self.handed.lock().unwrap().len() as u64, "as many were handed out as arrived");
        totals.issued_twice + totals.last_resort + self.faults.load(Ordering::Relaxed)
    }
}

/// A way to claim.
#[derive(Clone)]
enum Way {
    /// A transaction for each claim.
    Alone(SharedStore),
    /// Through the directory.
    Together(Arc<Directory>),
}

impl Way {
    /// The key; `None` if it was not a prekey that nobody had.
    async fn claim(&self, device: u64, number: u64) -> Option<Vec<u8>> {
        let owner = Owner::parse(&format!("o{device}@example.org")).unwrap();
        let requester = Requester::parse(&format!("r{}@example.org/{number}", number % ACCOUNTS)).unwrap();
        let (protocol, device) = (Protocol::Omemo2, DeviceId::new(1).unwrap());
        match self {
            Self::Alone(store) => {
                let claimant = Claimant::Address(requester);
                let claim = Claim { owner, protocol, device, claimant, foreign: false, strict: false };
                match store.claim(&claim, &ClaimRules::default(), SystemClock.now()).await.unwrap() {
                    ClaimOutcome::Handed { prekey, kind: ClaimKind::Fresh, .. } => Some(prekey.key),
                    _ => None,
                }
            }
            Self::Together(directory) => {
                let wanted = [Wanted { owner, protocol, device, strict: true }];
                match directory.claim_batch(&requester, &wanted).await.pop() {
                    Some(Ok(BundleItem::WithPrekey { prekey, .. })) => Some(prekey.key),
                    _ => None,
                }
            }
        }
    }
}

/// How often the store did any of these.
fn operations(registry: &Registry, names: &[&str]) -> u64 {
    let families = registry.gather();
    let metrics = families.iter().flat_map(|family| family.get_metric());
    let counted = metrics.filter(|metric| metric.get_label().iter().any(|label| names.contains(&label.value())));
    counted.map(|metric| metric.get_histogram().get_sample_count()).sum()
}

fn directory(store: SharedStore) -> Arc<Directory> {
    let settings = Settings {
        max_devices: 32,
        claims: ClaimRules::default(),
        domains: [DomainPart::new("example.org").unwrap().into_owned()].into(),
        max_subscriptions: 1,
        life: LifeSettings::default(),
    };
    let metrics = DirectoryMetrics::register(&Registry::new()).unwrap();
    Arc::new(Directory::new(store, Arc::new(SystemClock), settings, metrics))
}
