//! The XEP-0114 connection.
