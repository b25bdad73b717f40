//! hob runs functions on a small board the way AWS Lambda runs them.
#![cfg_attr(not(any(feature = "server", test)), no_std)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(test)]
extern crate std;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod board;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod deploy;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "server")]
pub mod function;
#[cfg(feature = "server")]
pub mod host;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod io;
pub mod limits;
pub mod pool;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod server;
pub mod wire;

#[cfg(feature = "handler")]
pub use wire::handler;
