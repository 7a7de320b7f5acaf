//! multiend, the server.
