//! Function folders on their way to a board: each is a zip, and goes only if it is another one than
//! the board has had from here.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::binary::Arch;
use super::look::{Look, is_version};
use super::run::Link;
use super::ssh::Trouble;
use super::upload::{self, Upload};
use crate::error::Error;
use crate::function::config::{FunctionConfig, Runtime};
use crate::function::elf::{Elf, LOOK};
use crate::function::{name, package};

/// A folder, ready to be sent.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The folder as a zip.
    zip: Vec<u8>,
    sha256: String,
    /// The handler's program and the start of it, if it is one for a certain machine.
    program: Option<(PathBuf, Elf, Vec<u8>)>,
}

/// Reads every function below a directory. What the server would refuse is refused here.
pub fn read(directory: &Path) -> Result<Vec<Function>, Error> {
    let fail = |error: std::io::Error| {
        Error::usage(format!("read the functions {}: {error}", directory.display()))
    };
    let mut functions = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let folder = entry.map_err(fail)?.path();
        if folder.join("function.toml").exists() {
            functions.push(Function::read(&folder)?);
        }
    }
    if functions.is_empty() {
        return Err(Error::usage(format!("{}: there are no functions in it", directory.display())));
    }
    functions.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(functions)
}

impl Function {
    fn read(folder: &Path) -> Result<Function, Error> {
        let fail = |cause: &dyn std::fmt::Display| {
            Error::usage(format!("read function {}: {cause}", folder.display()))
        };
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name::is_name(name) {
            return Err(fail(&"its name is none, allowed: letters, digits, - and _, at most 64"));
        }
        let file = folder.join("function.toml");
        let text = std::fs::read_to_string(&file).map_err(|error| fail(&error))?;
        let config =
            FunctionConfig::parse(&file.display().to_string(), &text).map_err(|issues| {
                let lines: Vec<String> = issues.iter().map(ToString::to_string).collect();
                Error::usage(lines.join("\n"))
            })?;
        let zip = packed(folder).map_err(|error| fail(&error))?;
        let sha256 = Sha256::digest(&zip).iter().map(|byte| format!("{byte:02x}")).collect();
        let program = program(folder, &config);
        Ok(Function { name: name.to_owned(), zip, sha256, program })
    }

    /// What the board calls this content.
    fn content(&self) -> &str {
        &self.sha256[..16]
    }

    /// True if the board has had this content from here already.
    pub fn is_there(&self, look: &Look) -> bool {
        look.functions.iter().any(|(name, content)| *name == self.name && content == self.content())
    }

    /// The loader that its program needs.
    pub fn interpreter(&self) -> Option<&str> {
        self.program.as_ref()?.1.interpreter.as_deref()
    }

    /// Why its program does not run there.
    pub fn check(&self, arch: Arch, look: &Look) -> Result<(), String> {
        let Some((path, elf, start)) = &self.program else { return Ok(()) };
        arch.check_handler(elf, start, look).map_err(|why| {
            format!("function {}: {} does not run there: {why}", self.name, path.display())
        })
    }

    /// Brings it there, where it takes the place of the folder before as a whole.
    pub fn send(&self, link: &mut Link<'_>, version: &str) -> Result<(), Trouble> {
        let id = format!("zip-{}", self.content());
        let zip = Upload { id: &id, bytes: &self.zip, sha256: &self.sha256, by: version };
        upload::upload(link, &zip, 0)?;
        let answer = link.steady(&["place", &self.name, self.content(), version])?;
        match answer.lines().last() {
            Some("placed") => Ok(()),
            _ => Err(Trouble::Board(format!("function {} could not be placed", self.name))),
        }
    }
}

/// Names that the board had from here and that are not among these.
pub fn gone<'a>(look: &'a Look, functions: &[Function]) -> Vec<&'a str> {
    let names = look.functions.iter().map(|(name, _)| name.as_str());
    names.filter(|name| !functions.iter().any(|function| function.name == **name)).collect()
}

/// `NAME CONTENT`, as the board tells it.
pub fn parse(value: &str) -> Option<(String, String)> {
    let (name, content) = value.split_once(' ')?;
    (name::is_name(name) && is_version(content)).then(|| (name.to_owned(), content.to_owned()))
}

fn packed(folder: &Path) -> Result<Vec<u8>, String> {
    let path = std::env::temp_dir().join(format!("hob-deploy-{:016x}", fastrand::u64(..)));
    let file = File::options().create_new(true).read(true).write(true).open(&path);
    let mut file = file.map_err(|error| error.to_string())?;
    // Without a name it is gone whatever happens.
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    package::pack(folder, &mut file).map_err(|trouble| trouble.to_string())?;
    let mut zip = Vec::new();
    let read = file.rewind().and_then(|()| file.read_to_end(&mut zip));
    read.map_err(|error| error.to_string())?;
    Ok(zip)
}

fn program(folder: &Path, config: &FunctionConfig) -> Option<(PathBuf, Elf, Vec<u8>)> {
    let file = match config.runtime {
        Runtime::Exec | Runtime::Native => config.handler.split_whitespace().next()?,
        Runtime::Provided(_) => "bootstrap",
        Runtime::Python(_) | Runtime::Node(_) => return None,
    };
    let path = folder.join(file);
    let bytes = std::fs::read(&path).ok()?;
    Some((path, Elf::parse(&bytes[..LOOK.min(bytes.len())])?, bytes))
}
