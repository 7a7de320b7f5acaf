//! multiend itself, as a plugin sees it: the server is a component here, behind a Prosody that only carries the stanzas.

use minidom::Element;

use crate::support::component::Component;
use crate::support::multiend::Multiend;
use crate::support::prosody::Prosody;
use crate::support::{COMPONENT, SECRET};

const SERVED: &str = "served.example";
const PLUGIN: &str = "urn:multiend:plugin:0";

/// Asks multiend as the server, and returns its answer.
async fn ask(server: &mut Component, id: &str, payload: &str) -> Element {
    server.send(&format!("<iq type='set' id='{id}' from='{SERVED}' to='{COMPONENT}'>{payload}</iq>")).await;
    server.wait_for("the answer", |e| e.name() == "iq" && e.attr("id") == Some(id)).await.element
}

fn query(unsettled: &str) -> String {
    format!(
        "<delegation xmlns='urn:xmpp:delegation:2' owner='alice@{SERVED}' relation='self'{unsettled}><forwarded \
         xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='set' id='q' from='alice@{SERVED}/phone' \
         to='alice@{SERVED}'><query xmlns='urn:xmpp:mam:2'/></iq></forwarded></delegation>"
    )
}

/// Of the answer to a query: the stanza ids of its messages, and whether it says that it is stable.
fn page(answer: &Element) -> (Vec<String>, Option<String>) {
    let wrapper = answer.get_child("delegation", "urn:xmpp:delegation:2").unwrap();
    let told: Vec<_> = wrapper.children().filter_map(|forwarded| forwarded.children().next()).collect();
    let message = |told: &&Element| {
        let result = told.get_child("result", "urn:xmpp:mam:2")?;
        let message = result.children().next()?.children().find(|child| child.name() == "message")?;
        message.attr("id").map(str::to_owned)
    };
    let fin = told.iter().find_map(|told| told.get_child("fin", "urn:xmpp:mam:2")).unwrap();
    (told.iter().filter_map(message).collect(), fin.attr("stable").map(str::to_owned))
}

#[tokio::test]
async fn a_page_says_that_more_may_follow_while_copies_of_its_owner_are_on_their_way() {
    let prosody = Prosody::builder().multiend().component(SERVED, SECRET, "").start();
    let mut server = Component::connect(prosody.component_port(), SERVED, SECRET).await;
    let _multiend = Multiend::builder(prosody.component_port()).domains(&[SERVED]).start();
    // What is in the future counts as now.
    let copies = format!(
        "<copies xmlns='{PLUGIN}'><copy owner='alice@{SERVED}' direction='sent' id='one-that-nobody-guesses' \
         stamp='2999-01-01T00:00:00Z'><message xmlns='jabber:client' type='chat' id='m1' from='alice@{SERVED}/phone' \
         to='bob@elsewhere.example'><body>b</body></message></copy></copies>"
    );
    for id in ["c1", "c1 again"] {
        let answer = ask(&mut server, id, &copies).await;
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    }
    let settled = ask(&mut server, "q1", &query("")).await;
    assert_eq!(page(&settled), (vec!["m1".to_owned()], None), "once, though it came twice");
    let unsettled = ask(&mut server, "q2", &query(" unsettled='true'")).await;
    assert_eq!(page(&unsettled), (vec!["m1".to_owned()], Some("false".to_owned())));
}
