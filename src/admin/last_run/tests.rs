use super::*;
use crate::model::SystemClock;
use crate::store;

fn found(id: u8, progress: u64, confirmed_at: Option<i64>) -> Deployment {
    let confirmed_at = confirmed_at.map(Timestamp::from_micros);
    Deployment { id: [id; 16], progress, epoch: 0, confirmed_at, doubted: false }
}

#[test]
fn a_database_is_doubted_if_it_went_back_or_is_another_one() {
    let known = Record { version: VERSION, deployment: hex::encode([1; 16]), progress: 7, at: 100 };
    assert_eq!(judge(None, &found(1, 0, None)), None);
    assert_eq!(judge(Some(&known), &found(1, 7, None)), None);
    assert_eq!(judge(Some(&known), &found(1, 9, None)), None);
    assert_eq!(judge(Some(&known), &found(1, 6, None)), Some(Doubt::Older { found: 6, known: 7 }));
    assert_eq!(judge(Some(&known), &found(2, 9, None)), Some(Doubt::Other));
    // What the operator said before this was written down is not about it.
    assert_eq!(judge(Some(&known), &found(1, 6, Some(100))), Some(Doubt::Older { found: 6, known: 7 }));
    assert_eq!(judge(Some(&known), &found(2, 6, Some(101))), None);
    assert_eq!(judge(None, &Deployment { doubted: true, ..found(1, 9, None) }), Some(Doubt::Told));
    assert_eq!(judge(Some(&known), &Deployment { doubted: true, ..found(1, 9, Some(200)) }), Some(Doubt::Told));
}

struct Place {
    dir: tempfile::TempDir,
    store: SharedStore,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("db").display());
        store::migrate(&url).await.unwrap();
        Self { store: store::open(&url, 1).await.unwrap(), dir }
    }

    async fn begin(&self) -> Result<LastRun, LastRunError> {
        self.begin_in("data").await
    }

    async fn begin_in(&self, data_dir: &str) -> Result<LastRun, LastRunError> {
        let data_dir = self.dir.path().join(data_dir);
        LastRun::begin(&data_dir, self.store.clone(), Arc::new(SystemClock), &Registry::new()).await
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("data").join(FILE)
    }

    fn set_progress(&self, progress: u64) {
        let mut record = read(&self.file()).unwrap().unwrap();
        record.progress = progress;
        write(&self.file(), &record).unwrap();
    }
}

#[tokio::test]
async fn each_start_counts_on_and_one_that_finds_less_waits_for_the_operator() {
    let place = Place::new().await;
    for progress in 1..=3 {
        let run = place.begin().await.unwrap();
        assert_eq!(*run.doubt().borrow(), None);
        assert_eq!(read(&place.file()).unwrap().unwrap().progress, progress);
    }
    place.set_progress(9);
    let mut run = place.begin().await.unwrap();
    assert_eq!(*run.doubt().borrow(), Some(Doubt::Older { found: 3, known: 9 }));
    assert!(place.store.deployment().await.unwrap().doubted);
    // Neither another start nor another instance, which has no file or a file of its own, gets round it.
    assert_eq!(*place.begin().await.unwrap().doubt().borrow(), Some(Doubt::Older { found: 3, known: 9 }));
    assert_eq!(*place.begin_in("other").await.unwrap().doubt().borrow(), Some(Doubt::Told));
    assert_eq!(read(&place.file()).unwrap().unwrap().progress, 9);
    place.store.confirm(SystemClock.now()).await.unwrap();
    run.look(false).await.unwrap();
    assert_eq!(*run.doubt().borrow(), None);
    assert!(read(&place.file()).unwrap().unwrap().progress < 9);
    assert_eq!(*place.begin().await.unwrap().doubt().borrow(), None);
}

#[tokio::test]
async fn a_running_instance_follows_the_others_and_sees_the_database_go_back() {
    let place = Place::new().await;
    let mut run = place.begin().await.unwrap();
    place.store.advance().await.unwrap();
    run.look(false).await.unwrap();
    assert_eq!(read(&place.file()).unwrap().unwrap().progress, 2, "what another instance counted is remembered");
    run.known.as_mut().unwrap().progress = 5;
    run.look(false).await.unwrap();
    assert_eq!(*run.doubt().borrow(), Some(Doubt::Older { found: 2, known: 5 }));
    assert_eq!(run.doubted.get(), 1);
}

#[tokio::test]
async fn what_was_issued_is_counted_soon_and_at_the_end() {
    let place = Place::new().await;
    let run = place.begin().await.unwrap();
    let (stop, issued) = (CancellationToken::new(), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let counter = issued.clone();
    let running = tokio::spawn(run.run(move || counter.load(std::sync::atomic::Ordering::Relaxed), stop.clone()));
    let progress = async || place.store.deployment().await.unwrap().progress;
    issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    while progress().await < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    stop.cancel();
    running.await.unwrap();
    assert_eq!(progress().await, 3);
    assert_eq!(read(&place.file()).unwrap().unwrap().progress, 3);
}

#[tokio::test]
async fn a_damaged_file_is_not_taken_for_none() {
    let place = Place::new().await;
    drop(place.begin().await.unwrap());
    for content in ["", "{", "{\"version\":2,\"deployment\":\"\",\"progress\":1,\"at\":0}"] {
        fs::write(place.file(), content).unwrap();
        assert!(matches!(place.begin().await.map(drop), Err(LastRunError::Content { .. })), "{content}");
    }
}
