use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::{pack, unpack};

fn restored(message: &[u8]) -> usize {
    let packed = pack(message);
    let length = packed.len();
    assert_eq!(unpack(packed).unwrap(), message, "{:?}", String::from_utf8_lossy(message));
    assert!(length <= message.len() + 1);
    length
}

/// Bytes that look random and are the same in every run.
fn noise(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A legacy message to ten devices as Prosody gives it to us.
fn legacy() -> String {
    let header = |n: u32| {
        let mut bytes = vec![0x33, 0x0a, 0x21, 0x05];
        bytes.extend(noise(n, 32));
        bytes.extend([0x10, n as u8]);
        if n.is_multiple_of(3) {
            bytes.push(1);
        }
        bytes.extend([0x18, 0, 0x22, 0x30]);
        bytes.extend(noise(n + 100, 56));
        format!("<key rid='{}'>{}</key>", 1_000_000_007_u32.wrapping_mul(n) >> 1, STANDARD.encode(bytes))
    };
    let headers: String = (1..=10).map(header).collect();
    format!(
        "<message type='chat' id='3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0e'><encrypted xmlns='eu.siacs.conversations.axolotl'>\
         <header sid='1873042914'>{headers}<iv>{}</iv></header><payload>{}</payload></encrypted>\
         <encryption name='OMEMO' xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl'/>\
         <store xmlns='urn:xmpp:hints'/><origin-id id='3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0e' xmlns='urn:xmpp:sid:0'/>\
         <body>[This message is OMEMO encrypted]</body></message>",
        STANDARD.encode(noise(7, 12)),
        STANDARD.encode(noise(8, 60)),
    )
}

/// Of each header, only its number, its key, its counter and its ciphertext are left; of the rest, a few bytes.
#[test]
fn what_is_left_of_a_message_to_ten_devices_is_what_is_random_in_it() {
    let message = legacy();
    let packed = restored(message.as_bytes());
    let random = 10 * (4 + 32 + 1 + 56) + 12 + 60 + 16;
    assert!(packed <= random + 70, "{packed} bytes of {}, {random} of them random", message.len());
}

/// What the program before this one has stored: headers by what they have in common, an id by where it stood before.
#[test]
fn what_was_stored_before_there_were_layouts_is_still_read() {
    let stored = "01808286043f2b8c7e91aa4b1c8d3e5a6f7b8c9d0e870680020d0def1f41424344464748494a4b4c4d499602d200450000000701\
                  4e58970208414243444546474898a205c201252f3e3c783e0102c3a9e9616263646566670507070507073c2f783e81";
    let message = "<message type='chat' id='3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0e'><key rid='1234567890'>QUJDREVGR0hJSktMTQ==\
                   </key><key rid='7'>QUJDRFhGR0hJSktMTU4=</key><payload>QUJDREVGR0g=</payload><origin-id \
                   xmlns='urn:xmpp:sid:0' id='3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0e'/>\
                   <x>\u{e9}&amp;abcdefgabcdefgabcdefg</x></message>";
    assert_eq!(unpack(hex::decode(stored).unwrap()).unwrap(), message.as_bytes());
}

/// Headers of both protocols, alone and together with ones that are laid out otherwise.
#[test]
fn headers_come_back_whatever_their_layout() {
    let legacy = |n: u32, counter: &[u8], end: usize| {
        let mut bytes =
            [&[0x33, 0x0a, 0x21, 0x05], noise(n, 32).as_slice(), &[0x10], counter, &[0x18, 7, 0x22, 0x30]].concat();
        bytes.extend(noise(n + 1, end));
        bytes
    };
    let current = |n: u32, counter: &[u8], length: u8| {
        let mut message =
            [&[0x08], counter, &[0x10, 0x81, 0x01, 0x1a, 0x20], noise(n, 32).as_slice(), &[0x22, 0x40]].concat();
        message.extend(noise(n + 1, 64));
        let length = length.wrapping_add(u8::try_from(message.len()).unwrap());
        [&[0x0a, 0x10], noise(n + 2, 16).as_slice(), &[0x12, length], &message].concat()
    };
    let text = |headers: &[Vec<u8>]| {
        let key = |(n, header): (usize, &Vec<u8>)| format!("<key rid='{}'>{}</key>", n + 1, STANDARD.encode(header));
        format!("<message>{}</message>", headers.iter().enumerate().map(key).collect::<String>())
    };
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let endless = [0xff; 11];
    let all = [
        legacy(1, &[3], 56),
        legacy(2, &[0x83, 0x02], 56),
        legacy(3, &huge, 56),
        legacy(4, &endless, 56),
        legacy(5, &[3], 55),
        legacy(6, &[3], 57),
        current(7, &[3], 0),
        current(8, &huge, 0),
        current(9, &[3], 1),
        current(10, &[3], 255),
        vec![0x33],
    ];
    for header in &all {
        restored(text(std::slice::from_ref(header)).as_bytes());
        for other in &all {
            restored(text(&[header.clone(), other.clone()]).as_bytes());
        }
    }
    restored(text(&all).as_bytes());
    // A header takes its number and what is random in it.
    let of = |headers: &[Vec<u8>]| restored(text(headers).as_bytes());
    assert_eq!(of(&[legacy(1, &[3], 56), legacy(2, &[3], 56)]) - of(&[legacy(1, &[3], 56)]), 4 + 32 + 56 + 2);
    assert_eq!(of(&[current(1, &[3], 0), current(2, &[3], 0)]) - of(&[current(1, &[3], 0)]), 4 + 16 + 32 + 64 + 3);
}

#[test]
fn what_is_written_unusually_comes_back_as_it_was() {
    for message in [
        "",
        "<",
        "\u{0}",
        "\u{1}\u{1}",
        "\u{7f}\u{80}",
        "plain",
        "<message/>",
        "<message\n\ttype=\"chat\">\u{fe0f}\u{1f600}</message>",
        // Base64 with bits left over, without padding, with white space, and in the other alphabet.
        "<message><key rid='1'>QUJDRR==</key><key rid='2'>QUJDRQ==</key></message>",
        "<message><payload>QUJDREVGR0hJSktM\n</payload><payload>QUJDREVGR0hJSktMTQ</payload></message>",
        "<message><payload>QUJDREVGR0hJ-_tM</payload></message>",
        // Numbers with zeros before them, signs, and too large ones.
        "<message><key rid='01'>QUJD</key><key rid='4294967296'>QUJD</key><key rid='+1'>QUJD</key></message>",
        "<message><key rid=\"1\">QUJD</key><key rid=\"4294967295\">QUJDQUJD</key><key rid=\"0\">QUJD</key></message>",
        "<message><key rid='1'></key><key rid='2'></key><key rid='3'>QQ==</key></message>",
        "<message id='3F2B8C7E-91AA-4B1C-8D3E-5A6F7B8C9D0E'/>",
        "<message id='3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0'/>",
        "<message><body>hello hello hello hello hello</body></message>",
    ] {
        restored(message.as_bytes());
    }
}

#[test]
fn damaged_bytes_are_an_error_and_never_more_than_the_longest_message() {
    let packed = pack(legacy().as_bytes());
    for length in 1..packed.len() {
        let _ = unpack(packed[..length].to_vec());
    }
    for place in 1..packed.len() {
        let mut damaged = packed.clone();
        damaged[place] ^= 0x55;
        let _ = unpack(damaged);
    }
    assert!(unpack(vec![1, 5, 1, 1]).is_err());
    // Ten times as much each time.
    let mut bomb = vec![1, b'x'];
    for _ in 0..60 {
        bomb.extend([5, 1, 1]);
    }
    let mut length = 61;
    while length < 1 << 27 {
        bomb.push(5);
        super::push_number(&mut bomb, length);
        super::push_number(&mut bomb, length);
        length *= 2;
    }
    assert!(unpack(bomb).is_err());
}

fn piece() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "<message",
        " type='chat'",
        " id='",
        "'>",
        "'/>",
        "<key rid='",
        "<key rid=\"",
        "\">",
        "</key>",
        "<payload>",
        "</payload>",
        "3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0e",
        "'3f2b8c7e-91aa-4b1c-8d3e-5a6f7b8c9d0e'",
        "'00000000-91aa-4b1c-8d3e-5a6f7b8c9d0e'",
        "1873042914",
        "0",
        "007",
        "4294967296",
        "=",
        "==",
        "<![CDATA[",
        "]]>",
        "\n",
        "é",
        "&amp;",
        "'",
        "\"",
        ">",
        "<",
    ]);
    let key = (0_u32.., prop::collection::vec(any::<u8>(), 0..8), prop::collection::vec(any::<u8>(), 0..8)).prop_map(
        |(device, front, back)| {
            let bytes = [front.as_slice(), &[1, 2, 3, 4, 5, 6], &back].concat();
            format!("<key rid='{device}'>{}</key>", STANDARD.encode(bytes))
        },
    );
    prop_oneof![word.prop_map(str::to_owned), key, "[A-Za-z0-9+/=]{0,40}", ".{0,6}"]
}

proptest! {
    #[test]
    fn whatever_goes_in_comes_out_identical(pieces in prop::collection::vec(piece(), 0..40)) {
        restored(format!("<{}", pieces.concat()).as_bytes());
        restored(pieces.concat().as_bytes());
    }

    #[test]
    fn any_bytes_come_out_identical_and_none_are_refused_but_as_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        restored(&bytes);
        let _ = unpack(bytes);
    }
}

/// Anybody may send a message of whatever the link takes, and all wait for the one who packs it.
#[test]
fn whatever_a_message_is_full_of_it_is_packed_in_one_pass() {
    let begun = std::time::Instant::now();
    for filling in
        ["\n", " ", ">", "a>", "' '", "&amp;", "<b>", "abcdefg ", "<key rid='1'>AAAA", "<key rid='1'>AAAA</key>"]
    {
        restored(format!("<message><body>{}</body></message>", filling.repeat((512 << 10) / filling.len())).as_bytes());
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}
