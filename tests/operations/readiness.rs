//! `/readyz` follows the link and the database, with the reason; `/healthz` follows neither.

use std::time::Duration;

use serde_json::Value;

use crate::support::multiend::Multiend;
use crate::support::postgres::{Fsync, Postgres};
use crate::support::process::{poll, poll_async};
use crate::support::prosody::Prosody;

const DEADLINE: Duration = Duration::from_secs(60);

/// The parts that are down, once these are.
fn wait_for(multiend: &Multiend, parts: &[&str]) -> Vec<Value> {
    let unready = poll(&format!("{parts:?} unready"), DEADLINE, || {
        let (status, body) = multiend.http("/readyz")?;
        let answer: Value = serde_json::from_str(&body).unwrap();
        let unready = answer["unready"].as_array().unwrap().clone();
        assert_eq!(answer["ready"], unready.is_empty());
        assert_eq!(status, if unready.is_empty() { 200 } else { 503 });
        let names: Vec<&str> = unready.iter().map(|part| part["part"].as_str().unwrap()).collect();
        (names == parts).then_some(unready)
    });
    assert_eq!(multiend.http("/healthz").map(|(status, _)| status), Some(200), "a restart would mend nothing");
    unready
}

#[tokio::test]
async fn it_is_ready_exactly_while_link_and_database_are_up() {
    let mut prosody = Prosody::builder().multiend().start();
    let mut postgres = Postgres::start(Fsync::Off);
    let url = postgres.fresh_database().await;
    let multiend =
        Multiend::builder(prosody.component_port()).database(&url).extra("[metrics]\ninterval = \"200ms\"").start();
    assert!(wait_for(&multiend, &[]).is_empty());

    prosody.stop();
    let link = wait_for(&multiend, &["link"]);
    assert!(link[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{link:?}");
    postgres.stop();
    let both = wait_for(&multiend, &["link", "database"]);
    assert!(both[1]["reason"].as_str().unwrap().starts_with("the database"), "{both:?}");
    assert!(!format!("{both:?}").contains("postgres://"), "{both:?}");
    poll("the gauge of the database", DEADLINE, || (multiend.metric("multiend_store_up") < 0.5).then_some(()));
    assert!(multiend.metric("multiend_link_up") < 0.5);

    postgres.restart();
    wait_for(&multiend, &["link"]);
    prosody.restart();
    wait_for(&multiend, &[]);
    poll_async("the gauges", DEADLINE, async || {
        let up = ["multiend_store_up", "multiend_link_up"].map(|name| multiend.metric(name) > 0.5);
        (up == [true, true]).then_some(())
    })
    .await;
}
