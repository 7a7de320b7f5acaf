//! What the tests need of both protocols alike: a look into their messages.
#![allow(dead_code, reason = "each test file uses a part of it")]

use multiend_crypto::{
    address::DeviceId,
    generation::{Legacy, Omemo2},
    legacy,
    message::MessageHeader,
    omemo2,
    protocol::Protocol,
};

/// A protocol whose messages can be looked into and put together at will.
pub trait Spoken: Protocol {
    fn headers(message: &mut Self::Message) -> Vec<&mut MessageHeader>;
    fn payload(message: &mut Self::Message) -> &mut Option<Vec<u8>>;
    fn set_sender(message: &mut Self::Message, sid: DeviceId);
    fn drop_headers(message: &mut Self::Message);
    /// A message to one device with whatever in it.
    fn message(sid: DeviceId, to: &str, header: MessageHeader, payload: Option<Vec<u8>>) -> Self::Message;
}

impl Spoken for Omemo2 {
    fn headers(message: &mut omemo2::EncryptedMessage) -> Vec<&mut MessageHeader> {
        message.keys.iter_mut().flat_map(|keys| &mut keys.headers).collect()
    }

    fn payload(message: &mut omemo2::EncryptedMessage) -> &mut Option<Vec<u8>> {
        &mut message.payload
    }

    fn set_sender(message: &mut omemo2::EncryptedMessage, sid: DeviceId) {
        message.sid = sid;
    }

    fn drop_headers(message: &mut omemo2::EncryptedMessage) {
        message.keys.clear();
    }

    fn message(sid: DeviceId, to: &str, header: MessageHeader, payload: Option<Vec<u8>>) -> omemo2::EncryptedMessage {
        let keys = vec![omemo2::RecipientHeaders { jid: to.to_owned(), headers: vec![header] }];
        omemo2::EncryptedMessage { sid, keys, payload }
    }
}

impl Spoken for Legacy {
    fn headers(message: &mut legacy::EncryptedMessage) -> Vec<&mut MessageHeader> {
        message.headers.iter_mut().collect()
    }

    fn payload(message: &mut legacy::EncryptedMessage) -> &mut Option<Vec<u8>> {
        &mut message.payload
    }

    fn set_sender(message: &mut legacy::EncryptedMessage, sid: DeviceId) {
        message.sid = sid;
    }

    fn drop_headers(message: &mut legacy::EncryptedMessage) {
        message.headers.clear();
    }

    fn message(sid: DeviceId, _to: &str, header: MessageHeader, payload: Option<Vec<u8>>) -> legacy::EncryptedMessage {
        legacy::EncryptedMessage { sid, headers: vec![header], iv: vec![7; 12], payload }
    }
}

/// Makes a test of each function for each protocol.
#[macro_export]
macro_rules! in_both_protocols {
    ($($test:ident),* $(,)?) => {
        mod omemo2 {
            $(#[test] fn $test() { super::$test::<multiend_crypto::generation::Omemo2>(); })*
        }
        mod legacy {
            $(#[test] fn $test() { super::$test::<multiend_crypto::generation::Legacy>(); })*
        }
    };
}
