//! The running node.

pub mod submit;
pub mod view;
