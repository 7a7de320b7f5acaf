//! Paging with any combination of conditions is what it would be on a plain list.

use jid::Jid;
use multiend::model::{ArchivedMessage, StoredCopy};
use multiend::store::{Edge, Filter, Page, PageQuery};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::append::all_of;
use super::database::Database;
use super::words::{at, copy, id, jid, message, owner};

const PEERS: [&str; 6] = [
    "bob@example.net",
    "bob@example.net/a",
    "bob@example.net/b",
    "carol@example.net/a",
    "alice@example.org/phone",
    "example.net",
];

/// Seconds, peer, body length, and whether it expires before the reading.
type Sent = (i64, usize, usize, bool);

#[derive(Debug, Clone)]
struct Question {
    with: Option<usize>,
    start: Option<i64>,
    end: Option<i64>,
    after_id: Option<prop::sample::Index>,
    before_id: Option<prop::sample::Index>,
    ids: Vec<prop::sample::Index>,
    edge: (u8, prop::sample::Index),
    max: u32,
    max_bytes: usize,
}

fn question() -> impl Strategy<Value = Question> {
    let index = any::<prop::sample::Index>;
    let rarely = |strategy| prop::option::weighted(0.2, strategy);
    let ids = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(index(), 1..5)];
    let bounds = (prop::option::weighted(0.3, -2..25_i64), prop::option::weighted(0.3, -2..25_i64));
    let size = (1..8_u32, prop_oneof![2 => Just(usize::MAX), 1 => 0..120_usize]);
    (prop::option::of(0..PEERS.len()), bounds, rarely(index()), rarely(index()), ids, (0..4_u8, index()), size)
        .prop_map(|(with, (start, end), after_id, before_id, ids, edge, (max, max_bytes))| Question {
            with,
            start,
            end,
            after_id,
            before_id,
            ids,
            edge,
            max,
            max_bytes,
        })
}

/// What the words of XEP-0313 and XEP-0059 come to on a list.
fn answer(archive: &[StoredCopy], query: &PageQuery) -> (Vec<StoredCopy>, bool) {
    let place = |id: &multiend::model::ArchiveId| archive.iter().position(|copy| copy.archive_id == *id).unwrap();
    let PageQuery { filter, edge, .. } = query;
    let matches = |with: &Jid, copy: &StoredCopy| {
        copy.peer == with.to_bare()
            && with.resource().is_none_or(|resource| copy.peer_resource.as_deref() == Some(resource.as_str()))
    };
    let matching: Vec<(usize, &StoredCopy)> = archive
        .iter()
        .enumerate()
        .filter(|(_, copy)| filter.with.as_ref().is_none_or(|with| matches(with, copy)))
        .filter(|(_, copy)| filter.start.is_none_or(|start| copy.at >= start))
        .filter(|(_, copy)| filter.end.is_none_or(|end| copy.at <= end))
        .filter(|(n, _)| filter.after_id.as_ref().is_none_or(|id| *n > place(id)))
        .filter(|(n, _)| filter.before_id.as_ref().is_none_or(|id| *n < place(id)))
        .filter(|(_, copy)| filter.ids.is_empty() || filter.ids.contains(&copy.archive_id))
        .collect();
    let mut in_direction: Vec<StoredCopy> = match edge {
        Edge::First => matching.into_iter().map(|(_, copy)| copy.clone()).collect(),
        Edge::After(id) => matching.into_iter().filter(|(n, _)| *n > place(id)).map(|(_, copy)| copy.clone()).collect(),
        Edge::Last => matching.into_iter().rev().map(|(_, copy)| copy.clone()).collect(),
        Edge::Before(id) => {
            matching.into_iter().rev().filter(|(n, _)| *n < place(id)).map(|(_, copy)| copy.clone()).collect()
        }
    };
    let mut kept = 0;
    let mut bytes = 0;
    for copy in &in_direction {
        bytes += copy.body.as_ref().map_or(0, |body| body.len());
        if kept == query.max as usize || (kept > 0 && bytes > query.max_bytes) {
            break;
        }
        kept += 1;
    }
    let complete = kept == in_direction.len();
    in_direction.truncate(kept);
    if matches!(edge, Edge::Last | Edge::Before(_)) {
        in_direction.reverse();
    }
    (in_direction, complete)
}

pub async fn paging_behaves_as_a_plain_list(database: Database) {
    let store = database.open().await;
    let sent = (0..20_i64, 0..PEERS.len(), 0..60_usize, prop::bool::weighted(0.2));
    let cases = (prop::collection::vec(sent, 0..30), prop::collection::vec(question(), 20));
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let run = |(sent, questions): (Vec<Sent>, Vec<Question>)| {
        case.set(case.get() + 1);
        let owner = owner(&format!("p{}", case.get()));
        let batch: Vec<ArchivedMessage> = sent
            .iter()
            .enumerate()
            .map(|(n, (seconds, peer, length, expires))| {
                let mut copy = copy(format!("id{n}"), PEERS[*peer]);
                copy.owner = owner.clone();
                copy.expires_at = expires.then(|| at(-1));
                message(&"x".repeat(*length), at(*seconds), vec![copy])
            })
            .collect();
        let pick =
            |index: &prop::sample::Index| (!sent.is_empty()).then(|| id(format!("id{}", index.index(sent.len()))));
        block_in_place(|| {
            Handle::current().block_on(async {
                store.append(&batch).await.unwrap();
                let archive = all_of(&store, &owner).await;
                assert_eq!(archive.len(), sent.len());
                for question in questions {
                    let edge = match (question.edge.0, pick(&question.edge.1)) {
                        (1, Some(id)) => Edge::After(id),
                        (2, Some(id)) => Edge::Before(id),
                        (3, _) => Edge::Last,
                        _ => Edge::First,
                    };
                    let query = PageQuery {
                        owner: owner.clone(),
                        filter: Filter {
                            with: question.with.map(|peer| jid(PEERS[peer])),
                            start: question.start.map(at),
                            end: question.end.map(at),
                            after_id: question.after_id.as_ref().and_then(pick),
                            before_id: question.before_id.as_ref().and_then(pick),
                            ids: question.ids.iter().filter_map(pick).collect(),
                        },
                        edge,
                        max: question.max,
                        max_bytes: question.max_bytes,
                    };
                    let Page::Copies { copies, complete, .. } = store.page(&query, at(0)).await.unwrap() else {
                        panic!("an id that is there is unknown");
                    };
                    assert_eq!((copies, complete), answer(&archive, &query), "{query:?}");
                    let everything = PageQuery { edge: Edge::First, max: u32::MAX, max_bytes: usize::MAX, ..query };
                    let all = answer(&archive, &everything).0;
                    let count = store.count(&owner, &everything.filter, at(0)).await.unwrap();
                    assert_eq!(count as usize, all.len());
                }
            });
        });
        Ok(())
    };
    runner.run(&cases, run).unwrap();
}
