//! The host does.
pub mod invocation;
pub mod logs;
pub mod output;
pub mod process;
pub mod spawn;
