//! Work that takes long: it says how far it is, and may be told to stop. What is done then stays done, and the same command
//! goes on from there.

use std::ops::ControlFlow;

/// How far a piece of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So much is done.
    pub done: u64,
    /// Of so much, where that is known.
    pub of: Option<u64>,
    /// What is counted, as `devices`.
    pub what: &'static str,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { done, of: Some(of), what } => write!(f, "{done} of {of} {what}"),
            Self { done, of: None, what } => write!(f, "{done} {what}"),
        }
    }
}

/// Told of every step, in between two transactions. Breaking stops the work.
pub trait OnProgress: FnMut(Progress) -> ControlFlow<()> + Send {}

impl<F: FnMut(Progress) -> ControlFlow<()> + Send> OnProgress for F {}

/// Goes on in any case and tells nobody.
pub fn quietly(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
