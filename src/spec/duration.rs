//! Durations as typed: `30s`, `1m 30s`, `500ms`, plain numbers are seconds.
