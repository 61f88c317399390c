//! The data directory: whose it is, that only one process uses it, and opening it in an order in
//! which a crash at any point is either a first start again or a complete directory.

mod current;
mod data_dir;
mod filesystem;
mod records;
mod start;

pub use current::Current;
pub use data_dir::{DataDir, DataDirError, DataDirOptions, RESTORING};
pub use records::Identity;
pub use start::{OpenStorage, StartError, StartOptions};
