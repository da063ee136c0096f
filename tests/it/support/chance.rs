//! Random moments that can be had again: the seed is printed, and `VMRUN_SEED` sets it.

use std::time::Duration;

/// A small generator (xorshift64*); good enough to spread moments.
pub(crate) struct Chance(u64);

impl Chance {
    #[allow(clippy::print_stdout)]
    pub(crate) fn new() -> Self {
        let seed = std::env::var("VMRUN_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::try_from(now.as_micros()).unwrap()
        });
        println!("VMRUN_SEED={seed}");
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// A moment from now to `limit`.
    pub(crate) fn delay(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap()))
    }
}

/// How often a test with random moments is repeated: 100 times with `VMRUN_SOAK=1`.
pub(crate) fn repetitions(quick: usize) -> usize {
    if std::env::var_os("VMRUN_SOAK").is_some() { 100 } else { quick }
}
