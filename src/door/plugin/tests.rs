use super::*;

fn servers() -> Servers {
    Servers::new(["example.org", "example.net"].map(|name| DomainPart::new(name).unwrap().into_owned()))
}

#[test]
fn only_a_server_itself_is_believed_and_only_for_its_own_accounts() {
    let alice = Owner::parse("alice@example.org").unwrap();
    for (from, believed) in [
        ("example.org", true),
        ("example.net", false),
        ("example.org/console", false),
        ("alice@example.org", false),
        ("alice@example.org/phone", false),
        ("sub.example.org", false),
        ("evil.example", false),
    ] {
        assert_eq!(servers().may_speak_for(&Jid::new(from).unwrap(), &alice), believed, "{from}");
    }
    assert!(Servers::default().speaking(&Jid::new("example.org").unwrap()).is_none(), "turned off, nobody is");
}

#[test]
fn the_news_of_a_list_goes_to_the_server_of_its_owner() {
    let owner = Owner::parse("alice@example.org").unwrap();
    let node = Node::DeviceList(crate::model::Protocol::Omemo2);
    let news = News::new(servers(), "multiend.example.org".to_owned());
    let text = news.list_changed(&owner, node).unwrap();
    let stranger = Owner::parse("alice@evil.example").unwrap();
    assert_eq!(news.list_changed(&stranger, node), None);
    let iq = Incoming::parse(text.as_bytes()).unwrap();
    assert_eq!((iq.kind, iq.to.as_str()), (Kind::IqSet, "example.org"));
    let changed = iq.element.child("changed", PLUGIN).unwrap();
    assert_eq!(changed.attribute("owner"), Some("alice@example.org"));
}
