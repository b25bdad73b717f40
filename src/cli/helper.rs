//! `hob helper ...`: work that the server hands to a process of its own. Not for people.

use std::path::Path;

use super::print;
use crate::error::Error;
use crate::function::store::Store;
use crate::runtime::bundled;
use crate::server::loader;

/// Does it, prints its result, and complains in one line.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let fail = |error: &dyn std::fmt::Display| Error::failed(error.to_string());
    match words.as_slice() {
        ["scan", data, folders, ..] => {
            let installed = bundled::install(Path::new(data));
            installed.map_err(|error| Error::doing("write", "the bundled runtimes", error))?;
            let folders = (*folders != "-").then(|| Path::new(folders));
            let found =
                store(data).scan(folders, &arguments[3..]).map_err(|error| match folders {
                    Some(root) => Error::doing("read", root.display(), error),
                    None => fail(&error),
                })?;
            for found in &found {
                print(&format!("{}\n", loader::print(found)));
            }
        }
        ["unpack", data, zip] => {
            let digest = store(data).unpack(Path::new(zip)).map_err(|error| fail(&error))?;
            print(&format!("{digest}\n"));
        }
        ["commit", data, name, digest] => {
            store(data).commit(name, digest).map_err(|error| fail(&error))?;
        }
        ["forget", data, name] => store(data).forget(name).map_err(|error| fail(&error))?,
        ["discard", data, running @ ..] => {
            store(data).discard(running).map_err(|error| fail(&error))?;
        }
        ["clean", data] => store(data).clean().map_err(|error| fail(&error))?,
        _ => return Err(Error::usage("helper: for the server's own use")),
    }
    Ok(())
}

fn store(data: &str) -> Store {
    Store::new(Path::new(data))
}
