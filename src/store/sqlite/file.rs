//! The file that the database is.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::store::StoreError;

/// The path in `sqlite:PATH`, also written `sqlite://PATH`.
pub(super) fn path(url: &str) -> Result<&Path, StoreError> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or_default();
    if path.is_empty() || path.starts_with(":memory:") {
        // The URL is not repeated: if it was meant for another database, it may hold a password.
        let error = Error::new(ErrorKind::InvalidInput, "a database is postgres://… or sqlite:PATH");
        return Err(StoreError::File { path: String::new(), error });
    }
    Ok(Path::new(path))
}

/// Makes an empty file that only its owner may read, where there is none. SQLite gives the files beside it the same mode.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::File { path: path.display().to_string(), error }),
    }
}
