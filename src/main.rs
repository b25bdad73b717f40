//! The hob binary: parse, run, exit.

fn main() {
    std::process::exit(hob::cli::main());
}
