use super::*;

const OWNER: &str = "alice@example.org";

/// A history with every kind of entry, and its heads.
fn honest() -> (Vec<Entry>, Vec<Head>) {
    let list = |devices: &[u32], labels| Change::List { devices: devices.to_vec(), labels };
    let changes = [
        (HistoryProtocol::Omemo2, Change::Identity { device: 7, key: vec![1; 32] }),
        (HistoryProtocol::Omemo2, list(&[7], None)),
        (HistoryProtocol::Legacy, Change::Identity { device: 7, key: vec![5; 33] }),
        (HistoryProtocol::Legacy, list(&[7, 8], None)),
        (HistoryProtocol::Omemo2, list(&[7, 9], labels_digest([(7, Some("phone"), None), (9, None, Some("c2ln"))]))),
        (HistoryProtocol::Omemo2, Change::Identity { device: 7, key: vec![2; 32] }),
        (HistoryProtocol::Legacy, Change::NoList),
        (HistoryProtocol::Omemo2, list(&[], None)),
    ];
    let mut heads = vec![Head::default()];
    let mut entries = Vec::new();
    for (index, (protocol, change)) in (1..).zip(changes) {
        let entry = Entry { index, at: 1_000 + i64::try_from(index / 2).unwrap(), protocol, change };
        heads.push(heads.last().unwrap().after(OWNER, &entry));
        entries.push(entry);
    }
    (entries, heads)
}

/// A ledger that has seen the first so many entries.
fn knowing(entries: &[Entry], heads: &[Head], count: usize) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.extend(OWNER, &entries[..count], &heads[count]).unwrap();
    ledger
}

#[test]
fn an_honest_server_passes_however_the_history_is_cut_into_pages() {
    let (entries, heads) = honest();
    let newest = heads.last().unwrap();
    for first in 0..=entries.len() {
        let mut ledger = Ledger::default();
        for page in [&entries[..first], &entries[first..]].into_iter().filter(|page| !page.is_empty()) {
            ledger.extend(OWNER, page, newest).unwrap();
        }
        assert_eq!(ledger.head(), *newest);
        ledger.extend(OWNER, &[], newest).unwrap();
        ledger.check_list(HistoryProtocol::Omemo2, Some(&[])).unwrap();
        ledger.check_list(HistoryProtocol::Legacy, None).unwrap();
        ledger.check_identity(HistoryProtocol::Omemo2, 7, &[2; 32]).unwrap();
        ledger.check_identity(HistoryProtocol::Legacy, 7, &[5; 33]).unwrap();
    }
}

/// Everything that one lie can change in an entry.
fn mutations(entry: &Entry) -> Vec<Entry> {
    let mut lies = vec![
        Entry { index: entry.index + 1, ..entry.clone() },
        Entry { index: entry.index - 1, ..entry.clone() },
        Entry { at: entry.at + 1, ..entry.clone() },
        Entry { at: entry.at - 1_000_000, ..entry.clone() },
        Entry {
            protocol: match entry.protocol {
                HistoryProtocol::Legacy => HistoryProtocol::Omemo2,
                HistoryProtocol::Omemo2 => HistoryProtocol::Legacy,
            },
            ..entry.clone()
        },
    ];
    let changes = match &entry.change {
        Change::List { devices, labels } => vec![
            Change::NoList,
            Change::List { devices: [devices.as_slice(), &[666]].concat(), labels: *labels },
            Change::List { devices: devices.iter().rev().copied().chain([1]).collect(), labels: *labels },
            Change::List { devices: devices.clone(), labels: Some([9; 32]) },
        ],
        Change::NoList => vec![Change::List { devices: vec![], labels: None }],
        Change::Identity { device, key } => {
            let mut other = key.clone();
            other[0] ^= 1;
            vec![
                Change::Identity { device: *device, key: other },
                Change::Identity { device: *device, key: key[1..].to_vec() },
                Change::Identity { device: device + 1, key: key.clone() },
                Change::NoList,
            ]
        }
    };
    lies.extend(changes.into_iter().map(|change| Entry { change, ..entry.clone() }));
    lies
}

#[test]
fn an_entry_that_was_rewritten_is_seen() {
    let (entries, heads) = honest();
    let newest = heads.last().unwrap();
    for known in 0..entries.len() {
        for at in known..entries.len() {
            for lie in mutations(&entries[at]) {
                let mut told = entries[known..].to_vec();
                told[at - known] = lie;
                let mut ledger = knowing(&entries, &heads, known);
                let before = ledger.clone();
                assert!(ledger.extend(OWNER, &told, newest).is_err(), "{told:?}");
                assert_eq!(ledger, before, "nothing of a lie is kept");
            }
        }
    }
}

#[test]
fn entries_that_were_dropped_doubled_or_swapped_are_seen() {
    let (entries, heads) = honest();
    let newest = heads.last().unwrap();
    for at in 0..entries.len() {
        let mut dropped = entries.clone();
        dropped.remove(at);
        let mut doubled = entries.clone();
        doubled.insert(at, entries[at].clone());
        let mut swapped = entries.clone();
        swapped.swap(at, (at + 1) % entries.len());
        // Also with the gap closed.
        let mut renumbered = dropped.clone();
        for (index, entry) in (1..).zip(&mut renumbered) {
            entry.index = index;
        }
        for told in [&dropped, &doubled, &swapped, &renumbered] {
            let mut ledger = Ledger::default();
            let answered = ledger.extend(OWNER, told, newest);
            assert!(answered.is_err() || ledger.head() != *newest, "{told:?}");
            // What looks like a page that is cut short leads nowhere: nothing more follows.
            assert!(answered.is_err() || ledger.extend(OWNER, &[], newest).is_err());
        }
    }
}

#[test]
fn a_fork_a_rollback_and_another_owner_s_history_are_seen() {
    let (entries, heads) = honest();
    let newest = *heads.last().unwrap();
    let mut ledger = knowing(&entries, &heads, entries.len());
    // Rolled back, and gone on in another way.
    for earlier in heads.iter().take(entries.len()) {
        assert!(ledger.extend(OWNER, &[], earlier).is_err());
    }
    let next = |at| Entry { index: newest.index + 1, at, protocol: HistoryProtocol::Omemo2, change: Change::NoList };
    let fork = heads[3].after(OWNER, &next(2_000));
    assert!(ledger.extend(OWNER, &[next(2_000)], &fork).is_err());
    assert!(ledger.extend(OWNER, &[], &Head { index: newest.index, hash: fork.hash }).is_err());
    assert_eq!(ledger.extend(OWNER, &[next(0)], &newest.after(OWNER, &next(0))), Err(Deceit::Time(newest.index + 1)));
    assert!(Ledger::default().extend("bob@example.org", &entries, &newest).is_err());
    // The honest continuation still passes.
    ledger.extend(OWNER, &[next(2_000)], &newest.after(OWNER, &next(2_000))).unwrap();
}

#[test]
fn what_does_not_stand_in_the_history_is_seen() {
    let (entries, heads) = honest();
    let ledger = knowing(&entries, &heads, 5);
    ledger.check_list(HistoryProtocol::Omemo2, Some(&[7, 9])).unwrap();
    for silent in [None, Some(&[7][..]), Some(&[9, 7]), Some(&[7, 9, 666]), Some(&[])] {
        assert_eq!(ledger.check_list(HistoryProtocol::Omemo2, silent), Err(Deceit::SilentList));
    }
    ledger.check_identity(HistoryProtocol::Omemo2, 7, &[1; 32]).unwrap();
    for (protocol, device, key) in [
        (HistoryProtocol::Omemo2, 7, vec![2; 32]),
        (HistoryProtocol::Omemo2, 8, vec![1; 32]),
        (HistoryProtocol::Legacy, 7, vec![1; 32]),
    ] {
        assert_eq!(ledger.check_identity(protocol, device, &key), Err(Deceit::SilentIdentity(device)));
    }
    // A former key is none either.
    let ledger = knowing(&entries, &heads, 6);
    assert!(ledger.check_identity(HistoryProtocol::Omemo2, 7, &[1; 32]).is_err());
}
