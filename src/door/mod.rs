//! Doors: how a request reaches us and names its owner (DESIGN: "Doors").
//!
//! Every door parses into one [`request::Request`], and one [`service::Service`] answers; nothing behind a door knows which
//! one it was. Nothing here decides a rule of the directory or the archive.

pub mod alias;
mod archive;
pub mod commands;
pub mod delegation;
mod directory;
pub mod dispatch;
mod extension;
#[cfg(test)]
mod fixture;
mod history;
pub mod metrics;
mod node;
pub mod notice;
pub mod outcome;
pub mod plugin;
mod policy;
pub mod request;
pub mod service;
