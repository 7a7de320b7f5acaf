//! What an owner wants archived (XEP-0441).

use std::collections::BTreeSet;

use jid::Jid;

/// Most JIDs in the two lists together.
pub const MAX_PREFERENCE_JIDS: usize = 1_000;

/// What becomes of a message with a JID in none of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveDefault {
    /// It is archived.
    #[default]
    Always,
    /// It is not.
    Never,
}

impl ArchiveDefault {
    /// The value of the attribute `default`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
        }
    }

    /// The number that stands for it in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Always => 1,
            Self::Never => 2,
        }
    }

    /// The default behind a number from the database.
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Always, Self::Never].into_iter().find(|default| default.code() == code)
    }
}

/// Why lists of JIDs are no preferences.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreferencesError {
    /// More than [`MAX_PREFERENCE_JIDS`].
    #[error("preferences may name at most {MAX_PREFERENCE_JIDS} JIDs")]
    TooMany,
    /// A JID in both lists.
    #[error("{0} stands in both lists")]
    InBoth(Jid),
}

/// An owner's preferences. A listed bare JID stands for all its resources; a listed full JID goes before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchivePreferences {
    default: ArchiveDefault,
    always: BTreeSet<Jid>,
    never: BTreeSet<Jid>,
}

impl ArchivePreferences {
    /// Takes a default and the two lists, which may have no JID in common.
    pub fn new(default: ArchiveDefault, always: BTreeSet<Jid>, never: BTreeSet<Jid>) -> Result<Self, PreferencesError> {
        if always.len().saturating_add(never.len()) > MAX_PREFERENCE_JIDS {
            return Err(PreferencesError::TooMany);
        }
        match always.intersection(&never).next() {
            Some(both) => Err(PreferencesError::InBoth(both.clone())),
            None => Ok(Self { default, always, never }),
        }
    }

    /// What becomes of messages with everybody else.
    pub fn otherwise(&self) -> ArchiveDefault {
        self.default
    }

    /// With whom messages are always archived.
    pub fn always(&self) -> &BTreeSet<Jid> {
        &self.always
    }

    /// With whom messages are never archived.
    pub fn never(&self) -> &BTreeSet<Jid> {
        &self.never
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jids(texts: &[&str]) -> BTreeSet<Jid> {
        texts.iter().map(|text| Jid::new(text).unwrap()).collect()
    }

    #[test]
    fn the_lists_are_bounded_and_do_not_contradict_each_other() {
        let of = |always, never| ArchivePreferences::new(ArchiveDefault::Always, always, never);
        assert!(of(jids(&["a@b"]), jids(&["a@b/c"])).is_ok());
        assert!(matches!(of(jids(&["a@b", "c@d"]), jids(&["C@d"])), Err(PreferencesError::InBoth(_))));
        let many: Vec<String> = (0..MAX_PREFERENCE_JIDS).map(|n| format!("u{n}@b")).collect();
        let many = jids(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(of(many.clone(), jids(&[])).is_ok());
        assert_eq!(of(many, jids(&["x@y"])), Err(PreferencesError::TooMany));
    }
}
