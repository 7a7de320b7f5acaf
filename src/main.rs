//! The `multiend` program.
fn main() {}
