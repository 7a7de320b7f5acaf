//! What a client sees of an archive (XEP-0313).

use minidom::Element;

use super::xmpp::Client;

const MAM: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";

/// A page of an archive.
pub struct Page {
    /// Archive id and forwarded message, in the order sent.
    pub results: Vec<(String, Element)>,
    /// How the page ended.
    pub fin: Element,
}

impl Page {
    /// The stanza ids of the messages.
    pub fn ids(&self) -> Vec<&str> {
        self.results.iter().map(|(_, message)| message.attr("id").unwrap_or_default()).collect()
    }

    /// Whether there is no more.
    pub fn complete(&self) -> bool {
        self.fin.attr("complete") == Some("true")
    }

    /// The id of the last message.
    pub fn last(&self) -> String {
        let set = self.fin.get_child("set", RSM).expect("a set");
        set.get_child("last", RSM).map(Element::text).unwrap_or_default()
    }
}

/// Asks a client's own archive; the error is the IQ that says so.
pub async fn query(client: &mut Client, content: &str) -> Result<Page, Element> {
    ask(client, "", content).await
}

/// Asks another archive, as that of a room.
pub async fn query_of(client: &mut Client, owner: &str, content: &str) -> Result<Page, Element> {
    ask(client, &format!(" to='{owner}'"), content).await
}

async fn ask(client: &mut Client, to: &str, content: &str) -> Result<Page, Element> {
    let id = client.fresh_id();
    client
        .send_raw(&format!("<iq type='set' id='{id}'{to}><query xmlns='{MAM}' queryid='{id}'>{content}</query></iq>"))
        .await;
    let answer = client
        .wait_for("the end of the page", |e| {
            e.attr("id") == Some(&id) && e.name() == "iq" && matches!(e.attr("type"), Some("result" | "error"))
        })
        .await;
    let Some(fin) = answer.get_child("fin", MAM) else { return Err(answer) };
    let mut results = Vec::new();
    let of_page =
        |e: &Element| e.get_child("result", MAM).is_some_and(|result| result.attr("queryid") == Some(id.as_str()));
    while let Some(stanza) = client.take(of_page) {
        let result = stanza.get_child("result", MAM).expect("a result");
        let forwarded = result.children().next().expect("something forwarded");
        let message = forwarded.children().find(|child| child.name() == "message").expect("a message");
        results.push((result.attr("id").expect("an id").to_owned(), message.clone()));
    }
    Ok(Page { results, fin: fin.clone() })
}

/// Asks for everything, page by page.
pub async fn everything(client: &mut Client) -> Result<Vec<(String, Element)>, Element> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = query(client, &format!("<set xmlns='{RSM}'><max>100</max>{after}</set>")).await?;
        after = format!("<after>{}</after>", page.last());
        let complete = page.complete();
        all.extend(page.results);
        if complete {
            return Ok(all);
        }
    }
}
