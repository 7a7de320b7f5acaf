//! The ground that the end-to-end tests stand on: private servers come up, survive a restart, and keep what they must.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use sqlx::{Connection, PgConnection};
use support::DOMAIN;
use support::ejabberd::Ejabberd;
use support::postgres::{Fsync, Postgres};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};

/// Alice writes to bob, who reads it; the component that is not connected answers with an error.
async fn two_users_talk(port: u16) {
    let mut alice = Client::connect(port, DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(port, DOMAIN, "bob", "laptop").await;
    alice.online().await;
    bob.online().await;
    alice.send_raw(&format!("<message to='{}' type='chat' id='m1'><body>a &gt; b</body></message>", bob.jid())).await;
    let message = bob.wait_for("the message", |e| e.name() == "message").await;
    assert_eq!(message.attr("from"), Some(alice.jid()));
    assert_eq!(message.get_child("body", "jabber:client").unwrap().text(), "a > b");
    let answer = alice.request("get", Some(support::COMPONENT), "<ping xmlns='urn:xmpp:ping'/>").await;
    assert!(error_condition(&answer).is_some(), "a component that is away: {answer:?}");
}

#[tokio::test]
async fn prosody_keeps_its_accounts_over_a_restart() {
    let mut prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    two_users_talk(prosody.c2s_port()).await;
    prosody.restart();
    two_users_talk(prosody.c2s_port()).await;
}

#[tokio::test]
async fn prosody_has_strangers_on_another_domain() {
    let prosody = Prosody::builder().users(&["alice"]).stranger("mallory", "elsewhere.example").start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut mallory = Client::connect(prosody.c2s_port(), "elsewhere.example", "mallory", "x").await;
    alice.online().await;
    mallory.send_raw(&format!("<message to='{}' type='chat'><body>hi</body></message>", alice.jid())).await;
    let message = alice.wait_for("the message", |e| e.name() == "message").await;
    assert_eq!(message.attr("from"), Some("mallory@elsewhere.example/x"));
}

#[tokio::test]
async fn ejabberd_keeps_its_accounts_over_a_restart() {
    let mut ejabberd = Ejabberd::builder().users(&["alice", "bob"]).multiend().start();
    two_users_talk(ejabberd.c2s_port()).await;
    ejabberd.restart();
    two_users_talk(ejabberd.c2s_port()).await;
}

#[tokio::test]
async fn a_killed_postgres_keeps_what_was_committed() {
    let mut postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("create table t (x int)").execute(&mut connection).await.unwrap();
    sqlx::query("insert into t values (42)").execute(&mut connection).await.unwrap();
    postgres.kill9();
    sqlx::query("select x from t").execute(&mut connection).await.unwrap_err();
    postgres.restart();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let x: i32 = sqlx::query_scalar("select x from t").fetch_one(&mut connection).await.unwrap();
    assert_eq!(x, 42);
}

#[tokio::test]
async fn databases_of_the_shared_postgres_are_apart() {
    let postgres = Postgres::shared();
    for url in [postgres.fresh_database().await, postgres.fresh_database().await] {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query("create table t (x int)").execute(&mut connection).await.unwrap();
    }
}
