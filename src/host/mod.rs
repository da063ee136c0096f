//! Layer `host`.
