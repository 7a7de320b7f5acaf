//! Every command in every document: run here as it stands, run by a test that is named, or marked as not run, with the
//! reason. And what stands inside the text is at least a command that there is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use multiend::model::{Device, DeviceId, DeviceList, Owner, Protocol, SessionJid, Timestamp};

use crate::support::multiend::{Multiend, binary};
use crate::support::ports::free_port;

const MARK: &str = "<!-- commands: ";
const HERE: &str = "run by tests/operations/documented_commands.rs";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for directory in [
        "docs",
        "plugins",
        "plugins/prosody",
        "charts",
        "charts/multiend",
        "monitoring",
        "packaging",
        "crypto",
        "client",
    ] {
        let Ok(entries) = fs::read_dir(root().join(directory)) else { continue };
        let files = entries.map(|entry| entry.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of shell commands in a document, each with what is said of it.
fn blocks(path: &Path, text: &str) -> Vec<(String, Vec<String>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if !["```sh", "```bash", "```shell", "```console"].contains(line) {
            continue;
        }
        let before = number.checked_sub(1).map_or("", |before| lines[before]);
        // The test that runs the snippets of a guide takes them by such a name.
        if ["<!-- attach: ", "<!-- plugin: "].iter().any(|taken| before.starts_with(taken)) {
            continue;
        }
        let mark = before.strip_prefix(MARK);
        let mark = mark.and_then(|mark| mark.strip_suffix(" -->")).unwrap_or_else(|| {
            panic!(
                "{}:{}: write `{MARK}run by FILE -->` or `{MARK}not run here: WHY -->` above these commands",
                path.display(),
                number + 1
            )
        });
        let commands = lines[number + 1..].iter().take_while(|line| **line != "```");
        blocks.push((mark.to_owned(), commands.map(ToString::to_string).collect()));
    }
    blocks
}

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let mut found = 0;
    for (path, text) in documents() {
        for (mark, commands) in blocks(&path, &text) {
            found += 1;
            if let Some(test) = mark.strip_prefix("run by ") {
                let source = fs::read_to_string(root().join(test)).unwrap_or_else(|_| panic!("{test} is not there"));
                // Those of this file are run below.
                let runs = test.ends_with("documented_commands.rs")
                    || commands
                        .iter()
                        .any(|command| command.split(['/', ' ']).any(|word| word.len() > 3 && source.contains(word)));
                assert!(runs, "{test} does not run {commands:?}");
            } else {
                assert!(mark.strip_prefix("not run here: ").is_some_and(|why| why.len() > 10), "{mark}");
            }
        }
    }
    assert!(found > 5, "only {found} blocks were found");
}

/// Alice has device 4223 and another one, in a database that was just set up.
async fn prepared() -> Multiend {
    let multiend = Multiend::builder(free_port()).prepare();
    multiend.migrate();
    let path = multiend.data_dir().join("multiend.sqlite3");
    let store = multiend::store::open(&format!("sqlite:{}", path.display()), 1).await.unwrap();
    let devices = [4223, 17].map(|id| Device::unlabelled(DeviceId::new(id).unwrap())).to_vec();
    let alice = Owner::parse("alice@example.org").unwrap();
    let session = SessionJid::parse("alice@example.org/phone").unwrap();
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    store
        .publish_device_list(&alice, Protocol::Omemo2, &session, &DeviceList::new(devices).unwrap(), 9, now)
        .await
        .unwrap();
    multiend
}

#[tokio::test]
async fn the_commands_of_the_documents_work_as_they_stand() {
    let mut run = 0;
    for (path, text) in documents() {
        for (_, commands) in blocks(&path, &text).into_iter().filter(|(mark, _)| mark == HERE) {
            let mut multiend = prepared().await;
            for line in commands {
                let command = line.split('#').next().unwrap().trim();
                let words: Vec<&str> = command.split_whitespace().collect();
                let ["multiend", args @ ..] = words.as_slice() else { panic!("{command}: not a command of ours") };
                run += 1;
                if args == ["serve"] {
                    multiend.spawn();
                    let health = || multiend.http("/healthz");
                    crate::support::process::poll("serve", std::time::Duration::from_secs(90), health);
                    assert!(multiend.terminate().success());
                    continue;
                }
                let (status, out, errors) = multiend.command(args);
                assert!(status.success(), "{}: {command}: {out}{errors}", path.display());
            }
        }
    }
    assert!(run > 8, "only {run} commands were run");
}

#[test]
fn every_command_that_a_text_names_is_there() {
    let mut named = 0;
    // In protocol.md these are texts that are hashed.
    for (path, text) in documents().into_iter().filter(|(path, _)| !path.ends_with("protocol.md")) {
        for span in text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("multiend ")) {
            let span = span.split('|').next().unwrap();
            let is_name =
                |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
            let words: Vec<&str> = span.split_whitespace().skip(1).take_while(is_name).collect();
            let output = Command::new(binary()).args(&words).arg("--help").output().unwrap();
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{}: `{span}`: there is no such command", path.display());
            for flag in span.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{}: `{span}`: there is no {flag}", path.display());
            }
            named += 1;
        }
    }
    assert!(named > 10, "only {named} commands were found");
}
