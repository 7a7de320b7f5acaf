//! Doors.

pub mod alias;
mod directory;
pub mod request;
pub mod service;
