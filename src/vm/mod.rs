//! Layer `vm`.
