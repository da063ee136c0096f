//! Measuring in turn, and what the numbers say together.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often each figure is measured at least, after a warm-up that does not count.
pub(crate) const RUNS: usize = 11;

/// More than a guest and its QEMU touch in a boot, in bytes.
const WARMED: usize = 700 << 20;

/// The values of one thing that was measured several times.
#[derive(Debug, Clone)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Something that is what it is however often one looks.
    pub(crate) fn exactly(value: f64) -> Self {
        Self(vec![value])
    }

    /// The same values otherwise expressed.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self::new(self.0.iter().map(|value| change(*value)).collect())
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Half of the values lie between these.
    pub(crate) fn spread(&self) -> (f64, f64) {
        (self.quantile(0.25), self.quantile(0.75))
    }

    pub(crate) fn runs(&self) -> usize {
        self.0.len()
    }

    fn quantile(&self, part: f64) -> f64 {
        let place = part * (self.0.len() - 1) as f64;
        let (low, high) = (self.0[place.floor() as usize], self.0[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }
}

/// Measures each of them once to warm up, then all of them in turn, so many times.
pub(crate) fn in_turn<const N: usize>(runs: usize, measured: [&mut dyn FnMut() -> f64; N]) -> [Series; N] {
    in_turn_after(|| (), runs, measured)
}

/// The same, with something done before each that does not count.
pub(crate) fn in_turn_after<const N: usize>(
    before_each: fn(),
    runs: usize,
    mut measured: [&mut dyn FnMut() -> f64; N],
) -> [Series; N] {
    for one in &mut measured {
        before_each();
        one();
    }
    let mut values = [const { Vec::new() }; N];
    for _ in 0..runs {
        for (one, values) in measured.iter_mut().zip(&mut values) {
            before_each();
            values.push(one());
        }
    }
    values.map(Series::new)
}

/// Where this machine is itself a virtual one, its host may take back memory that has been free for a second or two, and getting it again
/// costs a boot up to 400 ms: whoever ran behind one that needs little memory paid for it. Nor should a processor have slept just before.
pub(crate) fn warm_up() {
    std::hint::black_box(vec![1_u8; WARMED]);
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long something takes, in milliseconds.
pub(crate) fn time(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    milliseconds(begun.elapsed())
}

/// How long a program takes from its start to its end, in milliseconds. It must succeed; what it prints is thrown away.
#[track_caller]
pub(crate) fn time_of(command: &mut Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().unwrap();
    let taken = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    milliseconds(taken)
}
