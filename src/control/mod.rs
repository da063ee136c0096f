//! Layer `control`.
