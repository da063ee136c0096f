//! Layer `qmp`.
