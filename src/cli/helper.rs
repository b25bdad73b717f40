//! `hob helper ...`: work that the server hands to a process of its own. Not for people.

use std::path::Path;

use super::{print, probe};
use crate::error::Error;
use crate::function::package;
use crate::function::store::{Part, Store};
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
            let code = store(data).unpack(Path::new(zip)).map_err(|error| fail(&error))?;
            print(&serde_json::to_string(&code).map_err(|error| fail(&error))?);
        }
        ["pack", code, zip] => {
            let packed = std::fs::File::create_new(zip)
                .map_err(|error| fail(&error))
                .map(|mut zip| package::pack(Path::new(code), &mut zip));
            packed?.map_err(|error| fail(&error))?;
        }
        ["take", data, upload, member] => {
            let taken = store(data).take(Path::new(upload), member);
            print(&serde_json::to_string(&taken).map_err(|error| fail(&error))?);
        }
        ["merge", data, code, layers @ ..] => {
            let merged = store(data).merge(code, layers);
            print(&serde_json::to_string(&merged).map_err(|error| fail(&error))?);
        }
        ["fit", data, code, layers] => {
            let fits = store(data).fit(code, layers);
            print(&serde_json::to_string(&fits).map_err(|error| fail(&error))?);
        }
        ["commit", data, part, name, record, version @ ..] => {
            let version = match version {
                [number, staged] => Some((number_of(number)?, Path::new(staged))),
                _ => None,
            };
            let committed = store(data).commit(part_of(part)?, name, Path::new(record), version);
            committed.map_err(|error| fail(&error))?;
        }
        ["forget", data, part, name] => {
            store(data).forget(part_of(part)?, name).map_err(|error| fail(&error))?;
        }
        ["forget", data, part, name, number] => {
            let number = number_of(number)?;
            let forgotten = store(data).forget_version(part_of(part)?, name, number);
            forgotten.map_err(|error| fail(&error))?;
        }
        ["discard", data, running @ ..] => {
            store(data).discard(running).map_err(|error| fail(&error))?;
            bundled::remove_others(Path::new(data)).map_err(|error| fail(&error))?;
        }
        ["probe"] => probe::run()?,
        ["clean", data] => {
            store(data).clean().map_err(|error| fail(&error))?;
            bundled::remove_others(Path::new(data)).map_err(|error| fail(&error))?;
        }
        others => for_deploy(others)?,
    }
    Ok(())
}

/// What a board's shell may have no tool for.
fn for_deploy(words: &[&str]) -> Result<(), Error> {
    let fail = |error: &dyn std::fmt::Display| Error::failed(error.to_string());
    match words {
        ["digest", file] => {
            let (digest, _) =
                crate::function::tree::digest_of(Path::new(file)).map_err(|error| fail(&error))?;
            print(&format!("{digest}\n"));
        }
        ["unfold", zip, directory] => {
            let bytes_max = crate::limits::CODE_BYTES_MAX;
            let unpacked = package::unpack(Path::new(zip), Path::new(directory), bytes_max);
            unpacked.map_err(|error| fail(&error))?;
        }
        ["exchange", one, other] => {
            let (here, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            rustix::fs::renameat_with(here, *one, here, *other, flags)
                .map_err(|error| fail(&error))?;
        }
        ["rename", from, to] => std::fs::rename(from, to).map_err(|error| fail(&error))?,
        _ => return Err(Error::usage("helper: for the server and for hob deploy")),
    }
    Ok(())
}

fn part_of(directory: &str) -> Result<Part, Error> {
    Part::parse(directory).ok_or_else(|| Error::usage("helper: no such part"))
}

fn number_of(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::usage("helper: no number"))
}

fn store(data: &str) -> Store {
    Store::new(Path::new(data))
}
