//! Reference OMEMO cryptography for clients.
