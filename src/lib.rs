//! vmrun starts QEMU virtual machines and changes them while they run.
//!
//! [`Machine`] is a VM for programs: a test launches one, changes it, looks at it, and it is gone when the test is.
//!
//! The layers, top to bottom; a file imports from its own layer or from below (a test holds this):
//!
//! | layer | module | knows |
//! | --- | --- | --- |
//! | 6 | [`cli`] | what a person types and sees |
//! | 5 | [`machine`] | a VM for programs |
//! | 4 | [`control`] | the control protocol |
//! | 3 | [`vm`] | one running VM |
//! | 2 | [`qmp`], [`qemu`], [`host`] | QEMU's monitor, QEMU's language, this machine |
//! | 1 | [`spec`] | what a VM is |

pub mod cli;
pub mod control;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod machine;
pub mod qemu;
pub mod qmp;
pub mod spec;
pub mod vm;

pub use machine::{Error, Heard, Machine};
pub use spec::Request;
