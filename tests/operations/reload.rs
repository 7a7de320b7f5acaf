//! SIGHUP: what can change while the program runs does, what cannot is named, and what is wrong changes nothing.

use std::fs;
use std::time::Duration;

use crate::support::DOMAIN;
use crate::support::multiend::{Multiend, binary};
use crate::support::ports::free_port;
use crate::support::process::{Program, poll};
use crate::support::prosody::Prosody;
use crate::support::xmpp::Client;

const DEADLINE: Duration = Duration::from_secs(90);

/// Waits until the log says this so many times.
fn wait_for_log(multiend: &Multiend, text: &str, times: usize) {
    poll(text, DEADLINE, || (multiend.log().matches(text).count() >= times).then_some(()));
}

/// What alice's archive tells of a field of its policy.
async fn policy(client: &mut Client, field: &str) -> String {
    let alias = r"alice\40example.org@multiend.example.org";
    let answer = client.request("get", Some(alias), "<query xmlns='http://jabber.org/protocol/disco#info'/>").await;
    let text = String::from(&answer);
    let (_, rest) = text.split_once(field).unwrap_or_else(|| panic!("no {field} in {text}"));
    rest.split_once("<value>").unwrap().1.split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_reload_changes_what_can_change_and_names_what_needs_a_restart() {
    let prosody = Prosody::builder().users(&["alice"]).multiend().start();
    let mut multiend =
        Multiend::builder(prosody.component_port()).extra("[archive]\npage_max = 20\npurge_batch = 100").start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    assert_eq!(policy(&mut alice, "page-max").await, "20");

    let good = fs::read_to_string(multiend.config_path()).unwrap();
    let wrong = good.replace("page_max = 20", "page_max = \"many\"");
    fs::write(multiend.config_path(), wrong).unwrap();
    multiend.process().signal("HUP");
    wait_for_log(&multiend, "the configuration is wrong, everything stays as it was: ", 1);
    assert!(multiend.log().contains("archive.page_max: must be a whole number"), "{}", multiend.log());
    assert_eq!(policy(&mut alice, "page-max").await, "20");

    let other = good.replace("page_max = 20", "page_max = 30").replace("purge_batch = 100", "purge_batch = 200")
        + "[archive.retention]\nplain = \"1h\"\n";
    fs::write(multiend.config_path(), other).unwrap();
    multiend.process().signal("HUP");
    wait_for_log(&multiend, "the configuration has been read again", 1);
    assert_eq!(policy(&mut alice, "page-max").await, "30");
    assert_eq!(policy(&mut alice, "retention#plain").await, "3600");
    let log = multiend.log();
    let line = log.lines().find(|line| line.contains("need a restart")).expect("a warning");
    assert!(line.contains("archive.purge_batch") && !line.contains("page_max"), "{line}");
    assert!(multiend.metric("multiend_link_reconnects_total") < 0.5, "the stream goes on");
}

#[test]
fn the_level_of_the_log_follows_a_reload() {
    // Nobody listens there: each attempt to connect is a line of the log.
    let multiend = Multiend::builder(free_port()).prepare();
    let config = fs::read_to_string(multiend.config_path()).unwrap();
    let with_level = |level: &str| {
        let fast = config.replace("[component]", "[component]\nreconnect_max = \"500ms\"");
        fs::write(multiend.config_path(), format!("{fast}\n[log]\nlevel = \"{level}\"\n")).unwrap();
    };
    with_level("error");
    let log = multiend.data_dir().join("log");
    let mut program =
        Program::new(binary(), &log).env_clear().arg("serve").arg("--config").arg(multiend.config_path()).start();
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    poll("health", DEADLINE, || multiend.http("/healthz"));
    assert_eq!(lines(), "");
    with_level("info");
    program.signal("HUP");
    poll("a line of the link", DEADLINE, || lines().contains("the link is down").then_some(()));
    program.signal("TERM");
    assert!(program.wait(DEADLINE).success());
}
