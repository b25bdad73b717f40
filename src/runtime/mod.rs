//! How workers are spoken to.
pub mod launch;
