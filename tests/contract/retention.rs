//! `multiend admin retention`: looking changes nothing, and what was stopped goes on.

use std::ops::ControlFlow;

use multiend::admin::long_work::quietly;
use multiend::admin::retention::{dry_run, run};
use multiend::model::SystemClock;

use super::database::Database;
use super::words::{at, copy, message};

const EXPIRED: u64 = 30;

pub async fn a_retention_run_is_dry_first_and_goes_on_where_it_was_stopped(database: Database) {
    let store = database.open().await;
    let batch: Vec<_> = (0..EXPIRED)
        .map(|n| {
            let mut message = message("x", at(0), vec![copy(format!("m{n}"), "bob@b")]);
            // Long ago, by the clock of the machine too.
            message.copies[0].expires_at = Some(multiend::model::Timestamp::from_micros(1_000_000 + n as i64));
            message
        })
        .collect();
    // What is stored together may go together.
    for message in &batch {
        store.append(std::slice::from_ref(message)).await.unwrap();
    }
    store.append(&[message("kept", at(1), vec![copy("kept", "bob@b")])]).await.unwrap();

    let before = database.dump().await;
    let looked = dry_run(store.as_ref(), &SystemClock).await.unwrap();
    assert_eq!((looked.dry_run, looked.due, looked.expired), (true, EXPIRED, 0));
    assert!(looked.oldest.is_some_and(|oldest| oldest.starts_with("1970-01-01T00:00:01")));
    assert_eq!(database.dump().await, before, "looking changes nothing");

    let mut said = Vec::new();
    let stopped = run(store.as_ref(), &SystemClock, 7, |progress| {
        said.push(progress.to_string());
        ControlFlow::Break(())
    });
    let stopped = stopped.await.unwrap();
    assert_eq!((stopped.complete, stopped.expired, stopped.due), (false, 7, EXPIRED - 7));
    assert_eq!(said, ["7 of 30 copies"]);

    let rest = run(store.as_ref(), &SystemClock, 7, quietly).await.unwrap();
    assert_eq!((rest.complete, rest.expired, rest.due), (true, EXPIRED - 7, 0));
    let totals = store.archive_totals().await.unwrap();
    assert_eq!((totals.copies, totals.bodies), (1, 1), "what has not expired is there");
}
