//! Clients that load a cluster and remember what they were told.

mod registers;
mod route;
mod writers;

pub use registers::{RegisterClients, RegisterOptions};
pub use route::Route;
pub use writers::{UniqueWriters, WriterOptions, keys, reasons};
