//! Elements from strangers: whatever is accepted is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiend_crypto::{
    omemo2::{Bundle, DeviceList, EncryptedMessage},
    sce::Envelope,
};

fuzz_target!(|text: &str| {
    if let Ok(message) = EncryptedMessage::from_xml(text) {
        assert_eq!(EncryptedMessage::from_xml(&message.to_xml()).unwrap(), message);
    }
    if let Ok(bundle) = Bundle::from_xml(text) {
        assert_eq!(Bundle::from_xml(&bundle.to_xml()).unwrap(), bundle);
    }
    if let Ok(list) = DeviceList::from_xml(text) {
        assert_eq!(DeviceList::from_xml(&list.to_xml()).unwrap(), list);
    }
    if let Ok(envelope) = Envelope::from_xml(text.as_bytes()) {
        let _ = (envelope.body(), envelope.content_element(), envelope.check("a", "b", true));
    }
});
