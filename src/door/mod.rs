//! Doors: how a request reaches us and names its owner.
