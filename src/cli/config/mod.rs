//! Defaults of flags, from the user's configuration file and from variables of the environment.
//!
//! ```text
//! command line  >  VMRUN_COMMAND_FLAG  >  config.toml  >  built in
//! ```
//!
//! A default becomes a word of the command line, in front of the user's own: it is parsed and checked like a typed one. What the
//! command line says already, or what does not go with it, is left out.

mod arguments;
mod defaults;
mod file;
mod key;
mod show;
mod variables;

pub(super) use arguments::with_defaults;
pub(super) use show::{ConfigArgs, run};
