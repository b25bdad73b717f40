//! `hob --help` and `hob help TOPIC`.

use super::print;
use crate::server::settings::KEYS;

const OVERVIEW: &str = "\
hob runs functions on this machine the way AWS Lambda runs them.

  hob demo                    a tour of a server, with real timings
  hob serve [FUNCTIONS_DIR]   run the server; see hob help serve

  hob ls                      functions
  hob ps [--watch]            the slot table: who runs what
  hob show NAME               one function
  hob logs NAME [-f]          its log; --since 5m
  hob invoke NAME             run it; --payload JSON|@FILE|-  --tail
  hob push DIR|ZIP            create or update it; --name NAME
  hob push --layer DIR|ZIP    publish a version of a layer; --name NAME
  hob rm NAME                 remove a pushed one
  hob deploy USER@HOST...     install it on boards; see hob help deploy
  hob doctor                  what this machine can do, and what is missing
  hob bench                   what functions cost on it, in half a minute

Client verbs take --socket PATH (or HOB_SOCKET), or --url http://HOST:PORT (or
HOB_URL); ls, show, ps, doctor and bench take --json.

Exit codes: 0 ok; 1 it failed; 2 wrong use or configuration; 3 the server
cannot be reached, or refused.

More: hob help serve, function, exec, native, deploy
";

const FUNCTION: &str = "\
A function is a folder with function.toml and whatever its handler needs:

  runtime = \"exec\"            # or native, python3.11, nodejs20.x, provided
  handler = \"run.sh\"          # program and arguments, or module.function
  timeout_s = 3               # 1..900
  environment = { TABLE = \"orders\" }
  reserved_concurrency = 2    # absent: unreserved; 0: off
  provisioned_concurrency = 1 # workers kept ready
  queue_wait_ms = 1000        # wait for a free worker before 429; 0: refuse after 6 ms
  idle_timeout_s = 600        # stop idle workers
  shutdown_grace_ms = 500     # from SIGTERM to SIGKILL; 2000 with external extensions
  max_invocations = 0         # recycle a worker after so many; 0: never
  zygote = \"auto\"             # auto, on, off: fork workers
  layers = [\"../a\", \"deps:1\"] # folders and published ones, merged; later ones win
  recursive_loop = \"allow\"    # it may invoke itself more than 16 times in a chain
  [url] auth = \"none\"         # the function URL, /fn/NAME/..., is open; iam: signed
  [sandbox] write = [\"/tmp/a\"] # stays in sight, as does read = [...]

A folder that changes is taken over within seconds. One that is not valid is
refused with file, line and key, and answers 404 until it is repaired.
";

const DEPLOY: &str = "\
hob deploy USER@HOST[:PORT]...: install hob on boards over your own ssh, or
replace the version that runs there. The board needs a shell, and nothing else.

  --binary FILE           deploy this file; else this program itself if it runs
                          there, else `cross/build` of the checkout makes one
                          (in this directory, or in HOB_SOURCE)
  --board NAME            the profile that a new board takes; auto: its own (auto)
  --functions DIR         function folders too, those that changed
  --prune                 ... and remove there what came from DIR and is gone
  --dry-run               only show what would be done
  --probe-timeout SECONDS how long the new version has to answer (30)
  --confirm-timeout SECONDS how long the board waits for a sign of this side (60)
  --fleet FILE [NAME...]  the hosts of a file; fleet.toml if no host is named
  --status                version, the one before, and how the last time ended
  --rollback              back to the version before
  --json                  for programs

Only what changed is uploaded; a broken upload goes on where it was. If the new
version does not answer, or the link drops before this side has confirmed it,
the board goes back to the old one by itself, and says why. HOB_SSH is the
program to use in place of ssh; keys, users and jump hosts are those of its
settings. The exit code is that of the worst host.
";

const EXEC: &str = "\
runtime = \"exec\": one process for each invocation. The event is its standard
input, its standard output is the reply. A status other than 0 is a function
error with the last lines of standard error as its message. The environment has
HOB_REQUEST_ID, HOB_DEADLINE_MS, HOB_FUNCTION_ARN, and Lambda's variables.
";

const NATIVE: &str = "\
runtime = \"native\": a process that stays and speaks the wire on its standard
input, which is a socket. In Rust, depend on hob with default-features = false
and features = [\"handler\"]:

  fn main() -> std::io::Result<()> {
      hob::handler::run(|event, context| Ok(event.to_vec()))
  }

For other languages the wire is defined in src/wire/SPEC.md.
";

/// Prints a topic, or the overview.
pub fn print_help(topic: Option<&str>) {
    let text = match topic {
        Some("serve") => serve(),
        Some("function" | "functions") => FUNCTION.to_owned(),
        Some("deploy") => DEPLOY.to_owned(),
        Some("exec") => EXEC.to_owned(),
        Some("native" | "wire") => NATIVE.to_owned(),
        _ => OVERVIEW.to_owned(),
    };
    print(&text);
}

fn serve() -> String {
    let mut text = String::from(
        "\
hob serve [FUNCTIONS_DIR]: run the server in the foreground.

  --config FILE           read settings from FILE (hob.toml)
",
    );
    for key in &KEYS {
        text += &format!("  {:<23} {}\n", format!("--{}", key.flag), key.help);
    }
    text += "
Each is a key of hob.toml too, and a variable: ";
    let names: Vec<String> =
        KEYS.iter().map(|key| format!("HOB_{}", key.name.to_uppercase())).collect();
    text += &names.join(", ");
    text += ".
A flag wins over a variable, a variable over the file. HOB_LOG=debug says more.

SIGTERM and SIGINT drain: running invocations finish, new ones get 503. A second
one stops at once. SIGHUP reads settings and functions again. SIGUSR2 starts the program
anew, which takes over sockets and connections; this one ends with its invocations.
";
    text
}
