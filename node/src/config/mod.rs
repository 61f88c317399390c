//! The configuration: one TOML file, `QUORATE_*` environment variables over it, defaults under
//! it. Everything is checked before anything starts, and every complaint names its place.
//!
//! [`keys`] is the one list of keys. The example that `quorate init` writes, the check for
//! unknown keys, the environment's names and the defaults all come from it.

mod error;
mod example;
pub(crate) mod keys;
mod resolve;
mod settings;
mod source;
mod value;

pub(crate) use example::{effective, example};
pub(crate) use keys::KEYS;
pub(crate) use resolve::resolve_checked;
pub(crate) use settings::{LogFormat, LogSettings, Settings};
pub(crate) use source::Source;
pub(crate) use value::parse_duration;
