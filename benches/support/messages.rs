//! OMEMO messages as they come from clients through a server: ten headers, a text of some length, and what clients put around
//! it. What is encrypted looks random and is the same in every run.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use multiend::model::{
    ArchiveId, ArchivedMessage, Class, Copy, DeviceId, Direction, Origin, Owner, Protocol, Timestamp,
};

/// Accounts that write to each other.
pub const ACCOUNTS: u64 = 200;
/// Accounts that each of them writes with.
const CONTACTS: u64 = 20;
/// Devices of each account.
pub const DEVICES: u64 = 5;

/// A source of bytes that nothing can compress.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        let mut noise = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        noise.next();
        noise
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// An archive id as Prosody makes them.
    pub fn id(&mut self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes(12))
    }

    pub fn uuid(&mut self) -> String {
        let hex: String = self.bytes(16).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

pub fn account(number: u64) -> String {
    format!("user{number}@example.org")
}

/// The id of a device of an account.
pub fn device(account: u64, device: u64) -> u32 {
    u32::try_from(Noise::new(account * DEVICES + device + 1).below(0x7fff_fffe)).unwrap() + 1
}

/// Who writes the message with this number, and to whom.
pub fn parties(number: u64) -> (u64, u64) {
    let mut noise = Noise::new(number ^ 0x5bd1_e995);
    let from = noise.below(ACCOUNTS);
    (from, (from + 1 + noise.below(CONTACTS)) % ACCOUNTS)
}

/// The content of a message, without addresses: about 2.1 kB in the legacy protocol, 2.5 kB in `omemo2`.
pub fn body(protocol: Protocol, number: u64, (from, to): (u64, u64)) -> String {
    let mut noise = Noise::new(number);
    let devices = |of: u64| (0..DEVICES).map(move |n| device(of, n));
    let sid = device(from, 0);
    let id = noise.uuid();
    let key =
        |noise: &mut Noise, rid: u32| format!("<key rid='{rid}'>{}</key>", STANDARD.encode(header(protocol, noise)));
    let encrypted = match protocol {
        Protocol::Legacy => {
            let keys: String = devices(from).chain(devices(to)).map(|rid| key(&mut noise, rid)).collect();
            let length = 20 + noise.below(100) as usize;
            format!(
                "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='{sid}'>{keys}<iv>{}</iv></header>\
                 <payload>{}</payload></encrypted>\
                 <encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='eu.siacs.conversations.axolotl'/>",
                STANDARD.encode(noise.bytes(12)),
                STANDARD.encode(noise.bytes(length)),
            )
        }
        Protocol::Omemo2 => {
            let own: String = devices(from).map(|rid| key(&mut noise, rid)).collect();
            let theirs: String = devices(to).map(|rid| key(&mut noise, rid)).collect();
            let length = 96 + 16 * noise.below(6) as usize;
            format!(
                "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='{sid}'><keys jid='{}'>{own}</keys>\
                 <keys jid='{}'>{theirs}</keys></header><payload>{}</payload></encrypted>",
                account(from),
                account(to),
                STANDARD.encode(noise.bytes(length)),
            )
        }
    };
    format!(
        "<message type='chat' id='{id}'>{encrypted}<body>[This message is OMEMO encrypted]</body>\
         <request xmlns='urn:xmpp:receipts'/><store xmlns='urn:xmpp:hints'/>\
         <origin-id xmlns='urn:xmpp:sid:0' id='{id}'/></message>"
    )
}

/// A message key encrypted in a ratchet session, as libsignal writes it, or as OMEMOAuthenticatedMessage.
fn header(protocol: Protocol, noise: &mut Noise) -> Vec<u8> {
    let counter = |noise: &mut Noise| {
        let counter = noise.below(300);
        if counter < 128 { vec![counter as u8] } else { vec![counter as u8 | 0x80, (counter >> 7) as u8] }
    };
    let (n, pn) = (counter(noise), vec![noise.below(100) as u8]);
    match protocol {
        Protocol::Legacy => {
            let mut bytes = vec![0x33, 0x0a, 0x21, 0x05];
            bytes.extend(noise.bytes(32));
            bytes.push(0x10);
            bytes.extend(n);
            bytes.push(0x18);
            bytes.extend(pn);
            bytes.extend([0x22, 0x30]);
            bytes.extend(noise.bytes(48 + 8));
            bytes
        }
        Protocol::Omemo2 => {
            let mut message = vec![0x08];
            message.extend(n);
            message.push(0x10);
            message.extend(pn);
            message.extend([0x1a, 0x20]);
            message.extend(noise.bytes(32));
            message.extend([0x22, 0x40]);
            message.extend(noise.bytes(64));
            let mut bytes = vec![0x0a, 0x10];
            bytes.extend(noise.bytes(16));
            bytes.extend([0x12, message.len() as u8]);
            bytes.extend(message);
            bytes
        }
    }
}

/// A message between two accounts of one host, with a copy for each.
pub fn message(protocol: Protocol, number: u64, at: Timestamp, expires_at: Option<Timestamp>) -> ArchivedMessage {
    let (from, to) = parties(number);
    let mut noise = Noise::new(number ^ 0x0bad_cafe);
    let mut copy = |own: u64, peer: String, direction: Direction, own_resource: Option<&str>| Copy {
        owner: Owner::parse(&account(own)).unwrap(),
        archive_id: ArchiveId::parse(&URL_SAFE_NO_PAD.encode(noise.bytes(16))).unwrap(),
        direction,
        peer: jid::Jid::new(&peer).unwrap(),
        own_resource: own_resource.map(str::to_owned),
        expires_at,
    };
    let copies = vec![
        copy(from, account(to), Direction::Sent, Some("Conversations.x7Hk")),
        copy(to, format!("{}/Conversations.x7Hk", account(from)), Direction::Received, None),
    ];
    ArchivedMessage {
        class: Class::Content,
        at,
        body: Bytes::from(body(protocol, number, (from, to))),
        origin: Some(Origin::new(noise.next() as i64)),
        retracts: None,
        copies,
        key_exchanges: Vec::new(),
    }
}

/// A device as the store knows it.
pub fn device_id(of: u64, n: u64) -> DeviceId {
    DeviceId::new(device(of, n)).unwrap()
}
