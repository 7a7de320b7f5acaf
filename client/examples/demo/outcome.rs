//! What came of the story, and what is wrong with it.

use serde_json::json;

/// The figures of the last line.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Encrypted messages that the archive acknowledged.
    pub sent: usize,
    /// How many times another device than the sending one should have read a message.
    pub expected_reads: usize,
    /// How many times one did.
    pub decrypted: usize,
    /// Prekeys handed out, as the database says.
    pub prekeys_issued: u64,
    /// Prekeys handed out to more than one requester, as the database says.
    pub prekeys_issued_twice: u64,
    /// How many times an expired message could still be seen.
    pub expired_visible: usize,
    /// Bytes of headers for other devices that multiend did not send, as its metrics say.
    pub trimmed_bytes_saved: u64,
    /// How many times something that was sent encrypted stands in clear in the database.
    pub plaintext_found: usize,
    /// Everything else that was not as it should be.
    pub surprises: Vec<String>,
}

impl Outcome {
    /// Notes what is not as it should be.
    pub fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.surprises.push(otherwise());
        }
    }

    fn lost(&self) -> usize {
        self.expected_reads.saturating_sub(self.decrypted)
    }

    /// What is wrong; nothing if all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.surprises.clone();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                problems.push(what.to_owned());
            }
        };
        check(self.sent > 0 && self.expected_reads > 0, "nothing was sent");
        check(self.decrypted == self.expected_reads, "not everything was read exactly once by every device");
        check(self.prekeys_issued > 0, "no prekey was issued");
        check(self.prekeys_issued_twice == 0, "a prekey was issued twice");
        check(self.expired_visible == 0, "an expired message was visible");
        check(self.trimmed_bytes_saved > 0, "no header was trimmed");
        check(self.plaintext_found == 0, "plaintext stands in the database");
        problems
    }

    /// The last line.
    pub fn to_json(&self) -> String {
        // Written out, since the order is part of what was asked for and serde_json sorts.
        let pairs = [
            ("sent", json!(self.sent)),
            ("expected_reads", json!(self.expected_reads)),
            ("decrypted", json!(self.decrypted)),
            ("lost", json!(self.lost())),
            ("prekeys_issued", json!(self.prekeys_issued)),
            ("prekeys_issued_twice", json!(self.prekeys_issued_twice)),
            ("expired_visible", json!(self.expired_visible)),
            ("trimmed_bytes_saved", json!(self.trimmed_bytes_saved)),
            ("plaintext_found", json!(self.plaintext_found)),
        ];
        let fields: Vec<String> = pairs.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}
