//! Reading of exports for `multiend admin import`, on whatever is in the file.
#![no_main]

use std::io::{BufRead, BufReader};

use jid::BareJid;
use multiend::admin::import::source::{Found, Kind, MAX_RESULT, Source};
use multiend::stanza::mam::{push_preferences, read_foreign_preferences, read_preferences};
use multiend::stanza::tree::Element;

type Seen = (Option<BareJid>, Kind, Option<Vec<u8>>);

/// What is found, and whether the file is whole.
fn read(input: impl BufRead) -> (Vec<Seen>, bool) {
    let mut source = Source::new(input);
    let mut all = Vec::new();
    loop {
        match source.next_found() {
            Ok(Some(Found { account, kind, element })) => all.push((account, kind, element)),
            Ok(None) => return (all, true),
            Err(_) => return (all, false),
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let found = read(bytes);
    assert_eq!(found, read(BufReader::with_capacity(1, bytes)), "it does not matter how it comes from the disk");
    for (_, kind, element) in found.0 {
        let Some(element) = element else { continue };
        assert!(element.len() <= MAX_RESULT);
        let Ok(element) = Element::parse(&element) else { continue };
        if kind == Kind::Preferences
            && let Ok((preferences, _)) = read_foreign_preferences(&element)
        {
            let mut written = String::new();
            push_preferences(&mut written, &preferences, ToString::to_string);
            let again = Element::parse(written.as_bytes()).expect("what we write is well-formed");
            assert_eq!(read_preferences(&again).expect("and can be read"), preferences);
        }
    }
});
