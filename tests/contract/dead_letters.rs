//! Messages that a database refuses for their own sake.

use bytes::Bytes;
use multiend::admin::dead_letters::{Done, drop_letters, list, retry};
use multiend::model::{ArchivedMessage, Copy, Direction, Origin, Retraction};
use multiend::store::StoreError;

use super::append::all_of;
use super::database::Database;
use super::words::{alice, at, copy, id, message, owner};

pub async fn a_letter_comes_back_as_it_went_in(database: Database) {
    let store = database.open().await;
    let sent = Copy {
        direction: Direction::Sent,
        own_resource: Some("with\0nul".to_owned()),
        expires_at: Some(at(5)),
        ..copy("first", "bob@example.org/läptop")
    };
    let received = Copy { owner: owner("bob"), ..copy("second", "alice@example.org/phone") };
    let letter = ArchivedMessage {
        origin: Some(Origin::new(-3)),
        retracts: Some(Retraction { origin: Origin::new(7), tombstone: Bytes::from_static(b"<message/>") }),
        body: Bytes::from_static(b"<message>\0\xff</message>"),
        ..message("", at(1), vec![sent, received])
    };
    store.set_aside(&letter, "no\0t now", at(2)).await.unwrap();
    let other = message("other", at(1), vec![copy("other", "bob@b")]);
    store.set_aside(&other, "why", at(1)).await.unwrap();
    store.set_aside(&letter, "again", at(3)).await.unwrap();
    let letters = store.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(), ["other", "first"]);
    assert_eq!((&letters[1].message, letters[1].reason.as_str(), letters[1].at), (&letter, "again", at(3)));
    let rest = store.dead_letters(Some((letters[0].at, letters[0].id.clone())), 10).await.unwrap();
    assert_eq!(rest, letters[1..]);
    assert_eq!(list(store.as_ref()).await.unwrap().letters.len(), 2);
    assert_eq!(store.dead_letter(&id("first")).await.unwrap().as_ref(), Some(&letters[1]));
    let done = drop_letters(store.as_ref(), &[id("first"), id("nowhere")]).await.unwrap();
    assert_eq!(done, Done { dropped: 1, unknown: 1, ..Done::default() });
    assert_eq!(store.dead_letters(None, 10).await.unwrap().len(), 1);
}

/// A database that refuses a body; once it no longer does, the letter is stored, once.
pub async fn a_message_that_the_database_refuses_can_be_stored_later(database: Database) {
    let store = database.open().await;
    if database.is_sqlite() {
        database
            .execute(
                "CREATE TRIGGER poison BEFORE INSERT ON body WHEN NEW.bytes = CAST('poison' AS BLOB)
                 BEGIN SELECT RAISE(ABORT, 'poison'); END",
            )
            .await;
    } else {
        database
            .execute("ALTER TABLE body_block ADD CONSTRAINT poison CHECK (position('poison'::bytea IN bytes) = 0)")
            .await;
    }
    let poison = message("poison", at(0), vec![copy("p", "bob@b")]);
    let error = store.append(std::slice::from_ref(&poison)).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error}");
    store.set_aside(&poison, &error.to_string(), at(0)).await.unwrap();
    let refused = retry(store.as_ref(), &[]).await.unwrap();
    assert_eq!(refused, Done { refused: 1, ..Done::default() });
    if database.is_sqlite() {
        database.execute("DROP TRIGGER poison").await;
    } else {
        database.execute("ALTER TABLE body_block DROP CONSTRAINT poison").await;
    }
    assert_eq!(retry(store.as_ref(), &[id("p")]).await.unwrap(), Done { stored: 1, ..Done::default() });
    assert_eq!(retry(store.as_ref(), &[id("p")]).await.unwrap(), Done { unknown: 1, ..Done::default() });
    assert_eq!(all_of(&store, &alice()).await.len(), 1);
    assert!(store.dead_letters(None, 10).await.unwrap().is_empty());
}
