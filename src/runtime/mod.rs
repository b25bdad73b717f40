//! How workers are spoken to: one module for each kind of runtime.
//!
//! A runtime knows the worker it talks to and tells the host what that worker said. Who asked for
//! the invocation, and what becomes of the answer, it does not know.

pub mod bundled;
pub mod exec;
pub mod extensions;
pub mod interpreter;
pub mod launch;
pub mod native;
pub mod paths;
pub mod provided;
