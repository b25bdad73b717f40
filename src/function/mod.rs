//! What a function is: its name, its configuration, its code on disk.

pub mod config;
pub mod elf;
pub mod layer;
pub mod name;
pub mod package;
pub mod record;
pub mod store;
pub mod tree;
pub mod trigger;
pub mod url;
