use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::load::load_text;
use super::position::known_keys;
use crate::archive::Keep;

use super::{Config, ConfigError, Given, Loaded, LogFormat};

const EXAMPLE: &str = include_str!("../../docs/multiend.example.toml");
const MINIMAL: &str =
    "domains = [\"example.org\"]\n[component]\nname = \"multiend.example.org\"\nsecret = \"change me\"\n";

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    load_text(Path::new("multiend.toml"), text, variables)
}

fn config(text: &str) -> Config {
    load_with(text, &[]).unwrap_or_else(|error| panic!("{error}")).config
}

/// All that is said about a wrong configuration.
fn wrong(text: &str, variables: &[(&str, &str)]) -> String {
    let error = load_with(text, variables).unwrap_err();
    let said = format!("{error}");
    // Debug is not for people, but somebody will print it one day.
    assert!(!format!("{error:?}{said}").contains("hunter2"), "a secret in {said}");
    said
}

#[test]
fn the_example_is_the_defaults() {
    let defaults = config(MINIMAL);
    let example = config(EXAMPLE);
    assert_eq!(format!("{example:#?}"), format!("{defaults:#?}"));
    assert_eq!(example.component_secret.expose_secret(), defaults.component_secret.expose_secret());
    assert_eq!(example.database.expose(), "sqlite:data/multiend.sqlite3");
}

#[test]
fn the_example_names_every_key() {
    let keys = known_keys();
    assert!(keys.iter().any(|key| key == "archive.retention.key_transport"), "{keys:?}");
    let mut section = String::new();
    let mut named: Vec<String> = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.replace(']', ".");
        } else if let Some((name, _)) = line.split_once(" = ") {
            // A key of which only one of two may stand in a file is there as the end of a comment.
            named.push(format!("{section}{}", name.rsplit(' ').next().unwrap()));
        }
    }
    for key in keys {
        assert!(named.contains(&key), "{key} is missing in docs/multiend.example.toml");
    }
}

#[test]
fn a_misspelled_key_is_named_with_its_line_and_what_was_meant() {
    let text = "domains = [\"example.org\"]\n\n[component]\nname = \"m.example.org\"\nsercet = \"hunter2\"\n";
    assert_eq!(wrong(text, &[]), "multiend.toml:5: component.sercet: unknown key; did you mean secret?");
    let text = format!("{MINIMAL}\n[archive.retention]\nmessages = \"1d\"\n");
    assert_eq!(
        wrong(&text, &[]),
        "multiend.toml:7: archive.retention.messages: unknown key; there are content, key_transport, plain, signal"
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line_but_not_shown() {
    for (lines, said) in [
        ("[component]\nsecret = 1234567", "multiend.toml:2: component.secret: write it as a text, in quotes"),
        (
            "[directory]\nrepeat_window = \"24\"",
            "multiend.toml:2: directory.repeat_window: write a time with its unit: ms, s, m, h or d, as in \"5ms\"",
        ),
        ("[limits]\ndepth = 100000", "multiend.toml:2: limits.depth: must be a whole number between 16 and 256"),
        ("[limits]\ndepth = -1", "multiend.toml:2: limits.depth: must be a whole number between 16 and 256"),
        ("domains = [\"a@b\"]", "multiend.toml:1: domains: not the name of a domain"),
        ("domains = \"example.org\"", "multiend.toml:1: domains: write a list of domains, as [\"example.org\"]"),
        (
            "[component]\nserver = \"localhost\"",
            "multiend.toml:2: component.server: write it as \"host:port\", for example \"127.0.0.1:5347\"",
        ),
        (
            "[log]\nlevel = \"inof\"",
            "multiend.toml:2: log.level: write error, warn, info, debug or trace, or directives such as \
             \"info,multiend::link=debug\"",
        ),
    ] {
        assert_eq!(wrong(lines, &[]), said);
    }
    // Not even TOML: the library would quote the line.
    let said = wrong("[component]\nsecret = \"hunter2\n", &[]);
    assert!(said.starts_with("multiend.toml:2: "), "{said}");
    let said = wrong("[component]\nsecret = hunter2\n", &[]);
    assert!(said.starts_with("multiend.toml:2: "), "{said}");
}

#[test]
fn everything_that_is_missing_is_said_at_once() {
    let said = wrong("", &[]);
    assert_eq!(said.lines().count(), 3, "{said}");
    for key in ["domains: ", "component.name: ", "component.secret: "] {
        assert!(said.lines().any(|line| line.starts_with(key)), "{key} in {said}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_named_where_they_stand() {
    let text = format!("database = \"mysql://hunter2\"\n{MINIMAL}reconnect_min = \"1h\"\nreconnect_max = \"1m\"\n");
    assert_eq!(
        wrong(&text, &[]),
        "multiend.toml:1: database: write \"sqlite\", \"sqlite:PATH\" or \"postgres://user:password@host/database\"\n\
         multiend.toml:7: component.reconnect_max: must not be less than component.reconnect_min"
    );
    let text = MINIMAL.replace("multiend.example.org", "Example.ORG");
    assert_eq!(
        wrong(&text, &[]),
        "multiend.toml:3: component.name: the component cannot be one of the domains that it serves"
    );
}

#[test]
fn the_environment_overrides_any_key() {
    let variables = [
        ("MULTIEND_CONFIG", "elsewhere.toml"),
        ("MULTIEND_COMPONENT__SECRET", "12345"),
        ("MULTIEND_DOMAINS", "[\"a.example\", \"b.example\"]"),
        ("MULTIEND_ARCHIVE__RETENTION__CONTENT", "90d"),
        ("MULTIEND_ARCHIVE__RETENTION__SIGNAL", "none"),
        ("MULTIEND_ARCHIVE__PAGE_MAX", "200"),
        ("MULTIEND_LOG__FORMAT", "json"),
        ("HOME", "/"),
    ];
    let loaded = load_with(MINIMAL, &variables).unwrap();
    let config = loaded.config;
    assert_eq!(config.component_secret.expose_secret(), "12345");
    assert!(config.domains.contains("b.example") && config.domains.len() == 2);
    assert_eq!(config.archive.retention.content, Keep::For(Duration::from_secs(90 * 24 * 3600)));
    assert_eq!(config.archive.retention.signal, Keep::Never);
    assert_eq!(config.archive.page_max, 200);
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn what_is_wrong_in_the_environment_is_said_with_the_variable() {
    assert_eq!(
        wrong(MINIMAL, &[("MULTIEND_COMPONENT__SERCET", "hunter2")]),
        "environment variable MULTIEND_COMPONENT__SERCET: did you mean MULTIEND_COMPONENT__SECRET?"
    );
    assert_eq!(
        wrong(MINIMAL, &[("MULTIEND_ARCHIVE__PAGE_MAX", "hunter2")]),
        "environment variable MULTIEND_ARCHIVE__PAGE_MAX: archive.page_max: must be a whole number between 1 and 1000"
    );
    assert_eq!(
        wrong(MINIMAL, &[("MULTIEND_COMPONENT__RECONNECT_MAX", "10ms")]),
        "environment variable MULTIEND_COMPONENT__RECONNECT_MAX: component.reconnect_max: must not be less than \
         component.reconnect_min"
    );
}

#[test]
fn variables_of_a_kubernetes_service_named_multiend_do_no_harm() {
    let loaded = load_with(MINIMAL, &[("MULTIEND_SERVICE_HOST", "10.0.0.1"), ("MULTIEND_PORT_9614_TCP_PROTO", "tcp")]);
    assert_eq!(loaded.unwrap().warnings.len(), 2);
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let database = dir.path().join("database");
    std::fs::write(&secret, "hunter2\n").unwrap();
    std::fs::write(&database, "postgres://multiend:hunter2@db.example/multiend\n").unwrap();
    let text = format!(
        "database_file = {database:?}\ndomains = [\"example.org\"]\n[component]\nname = \"m.example.org\"\nsecret_file = {secret:?}\n"
    );
    let config = config(&text);
    assert_eq!(config.component_secret.expose_secret(), "hunter2");
    assert_eq!(config.database.expose(), "postgres://multiend:hunter2@db.example/multiend");
    let shown = format!("{config} {config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("PostgreSQL, multiend at db.example:5432"), "{shown}");

    std::fs::remove_file(&secret).unwrap();
    let said = wrong(&text, &[]);
    assert!(said.starts_with("multiend.toml:5: component.secret_file: cannot read "), "{said}");
    let said = wrong(&format!("{MINIMAL}secret_file = {secret:?}\n"), &[]);
    assert_eq!(said, "multiend.toml:5: component.secret_file: give either this or component.secret, not both");
}

#[test]
fn the_keys_that_a_reload_changes_are_documented() {
    let operations = include_str!("../../docs/operations.md");
    let (_, section) = operations.split_once("<!-- reloaded -->").unwrap();
    let section = section.split_once("<!-- end of reloaded -->").unwrap().0;
    let named: Vec<&str> = section.split('`').skip(1).step_by(2).collect();
    for key in known_keys() {
        let named =
            named.iter().any(|name| name.strip_suffix(".*").map_or(*name == key, |below| key.starts_with(below)));
        // What stands as an exception in the text is one in the program.
        let excepted = section.contains(&format!("but not `{key}`"));
        assert_eq!(Given::is_reloaded(&key), named && !excepted, "{key}");
    }
}

#[test]
fn what_was_given_is_compared_and_never_shown() {
    let one = load_with(&format!("{MINIMAL}[archive]\npage_max = 7\n"), &[]).unwrap().given;
    let other = load_with(&MINIMAL.replace("change me", "hunter2"), &[("MULTIEND_LOG__LEVEL", "debug")]).unwrap().given;
    assert_eq!(one.differing(&other), ["archive.page_max", "component.secret", "log.level"]);
    assert!(one.differing(&one).is_empty());
    assert!(!format!("{other:?}").contains("hunter2"));
}
