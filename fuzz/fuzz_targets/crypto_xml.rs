//! Elements from strangers: whatever is accepted is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiend_crypto::{
    bundle::Bundle,
    generation::{Legacy, Omemo2},
    legacy, omemo2,
    protocol::{EncryptedElement, Protocol},
    sce::Envelope,
};

fuzz_target!(|text: &str| {
    both::<Omemo2>(text);
    both::<Legacy>(text);
    if let Ok(list) = omemo2::DeviceList::from_xml(text) {
        assert_eq!(omemo2::DeviceList::from_xml(&list.to_xml()).unwrap(), list);
    }
    if let Ok(list) = legacy::DeviceList::from_xml(text) {
        assert_eq!(legacy::DeviceList::from_xml(&list.to_xml()).unwrap(), list);
    }
    if let Ok(envelope) = Envelope::from_xml(text.as_bytes()) {
        let _ = (envelope.body(), envelope.content_element(), envelope.check("a", "b", true));
    }
});

fn both<P: Protocol>(text: &str) {
    if let Ok(message) = P::Message::read(text) {
        assert_eq!(P::Message::read(&message.write()).unwrap(), message);
    }
    if let Ok(bundle) = Bundle::<P>::from_xml(text) {
        assert_eq!(Bundle::<P>::from_xml(&bundle.to_xml()).unwrap(), bundle);
    }
}
