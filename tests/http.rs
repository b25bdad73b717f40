//! The public HTTP surface of a real server: clients that cut, pipeline, stall, vanish and lie.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "http/auth.rs"]
mod auth;
#[path = "http/clients.rs"]
mod clients;
mod common;
#[path = "http/cors.rs"]
mod cors;
#[path = "http/framing.rs"]
mod framing;
#[path = "http/fuzz.rs"]
mod fuzz;
#[path = "http/invoke.rs"]
mod invoke;
#[path = "http/recursion.rs"]
mod recursion;
#[path = "http/refused.rs"]
mod refused;
#[path = "http/sizes.rs"]
mod sizes;
#[path = "http/stream.rs"]
mod stream;
#[path = "http/url.rs"]
mod url;
