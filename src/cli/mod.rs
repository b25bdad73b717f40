//! The command line: arguments to a command, and what each verb prints.

mod admin;
mod arguments;
mod bench;
mod client;
mod demo;
mod deploy;
mod doctor;
mod help;
mod helper;
mod invoke;
mod probe;
mod sample;
mod scene;
pub(crate) mod table;

use std::io::Write;

use crate::error::{Error, ExitCode};
use arguments::Command;

/// Runs the program with the arguments of its process; returns its exit code.
pub fn main() -> i32 {
    let code = match arguments::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(code) => code,
        Err(error) => {
            for line in error.message.lines() {
                say(&format!("hob: {line}"));
            }
            error.code
        }
    };
    code as i32
}

fn run(command: Command) -> Result<ExitCode, Error> {
    if let Command::Serve { config, flags } = command {
        let settings = crate::server::settings::Settings::read(config.as_deref(), &flags)?;
        let program = crate::server::program();
        let origin = crate::server::Origin { config, flags, program };
        crate::server::run(&settings, origin)?;
        return Ok(ExitCode::Ok);
    }
    run_other(command)
}

/// Every command but `serve`, which has this frame, of 12 KiB, not beneath its own as long as it runs.
#[inline(never)]
fn run_other(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Help(topic) => help::print_help(topic.as_deref()),
        Command::Version => print(&format!("hob {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Demo { keep } => demo::run(keep)?,
        Command::Bench { json } => bench::run(json)?,
        Command::Invoke(invoke) => return invoke::run(invoke),
        Command::Push { target, path, name, layer: true } => {
            admin::push_layer(&target, &path, name)?;
        }
        Command::Push { target, path, name, layer: false } => admin::push(&target, &path, name)?,
        Command::List { target, json } => admin::list(&target, json)?,
        Command::Show { target, name, json } => admin::show(&target, &name, json)?,
        Command::Remove { target, name } => admin::remove(&target, &name)?,
        Command::Processes { target, json, watch } => admin::processes(&target, json, watch)?,
        Command::Logs { target, name, follow, since_s } => {
            admin::logs(&target, &name, follow, since_s)?;
        }
        Command::Doctor { json } => return doctor::run(json),
        Command::Deploy(options) => return crate::deploy::run(&options),
        Command::Helper(arguments) => helper::run(&arguments)?,
        Command::Sample => sample::run()?,
        Command::Serve { .. } => unreachable!("it is run before"),
    }
    Ok(ExitCode::Ok)
}

/// Prints to standard output. A reader that has seen enough ends the program, without complaint.
pub(crate) fn print(text: &str) {
    if try_print(text).is_err() {
        std::process::exit(0);
    }
}

/// As [`print()`], for a program that has something to do before it ends.
pub(crate) fn try_print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::doing("write to", "standard output", error))
}

/// Prints a line to standard error.
pub(crate) fn say(line: &str) {
    // Nobody is left to tell if this fails.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
