//! The framer against rxml on the body of a stream, and against itself with the bytes cut in two.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiend::link::Limits;
use multiend::link::framer::{Event, Framer};

#[path = "../differential.rs"]
mod differential;

fuzz_target!(|body: &[u8]| {
    differential::compare(body);
    let small = Limits { stanza_bytes: 200, depth: 4, elements: 10, attributes: 3, attribute_bytes: 50 };
    let stream = [differential::HEADER.as_bytes(), body].concat();
    let whole = events(small, &[&stream]);
    let cut = differential::HEADER.len() + usize::from(body.first().copied().unwrap_or_default()).min(body.len());
    assert_eq!(events(small, &[&stream[..cut], &stream[cut..]]), whole);
});

fn events(limits: Limits, pieces: &[&[u8]]) -> (Vec<Event>, Option<multiend::link::Fault>) {
    let mut framer = Framer::new(limits);
    let mut events = Vec::new();
    for piece in pieces {
        framer.feed(piece);
        loop {
            match framer.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
    }
    (events, None)
}
