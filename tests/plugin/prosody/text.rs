//! How the plugin writes stanzas.

use std::process::Command;

use super::support::repository;

#[test]
fn a_stanza_is_written_as_prosody_writes_it() {
    let paths = "package.path = '/usr/lib/prosody/?.lua;' .. package.path; \
                 package.cpath = '/usr/lib/prosody/?.so;' .. package.cpath";
    let output = Command::new("lua5.4")
        .args(["-e", paths])
        .arg(repository().join("tests/plugin/prosody/text.lua"))
        .arg(repository().join("plugins/prosody/mod_multiend/text.lib.lua"))
        .output()
        .expect("Prosody needs Lua");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
