//! Every example runs, and every command of README does what README says.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Site, eventually, example};
use hob::wire::{Context, FRAME_MAX, FromWorker, PIPES, PROTOCOL, ToWorker, decode, encode};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_handler_speaks_what_its_host_understands() {
    let run = |host: &str, has_pipe: bool| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        // The shell has the pipe in place of its standard error.
        let place = if has_pipe { "3<&2 2>&1" } else { "3<&- 2>&1" };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$0\" {place}")]).arg(example("hello-native"));
        command.env("HOB_WIRE", host).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        command.stderr(OwnedFd::from(reader));
        let mut child = command.spawn().unwrap();
        drop(command);
        let context = Context {
            id: 1,
            deadline_ms: u64::MAX,
            request_id: "",
            function_arn: "",
            trace_id: "",
            client_context: "",
            identity: "",
        };
        let mut frame = [0; 64];
        let length = encode(&ToWorker::Invoke(context), 2, &mut frame).unwrap();
        let frame = [&frame[..length], b"{}"].concat();
        if has_pipe {
            writer.write_all(&frame).unwrap();
        } else {
            ours.write_all(&frame).unwrap();
        }
        drop(writer);
        ours.shutdown(Shutdown::Write).unwrap();
        let mut said = Vec::new();
        ours.read_to_end(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        let mut messages = Vec::new();
        while let Some(frame) = decode::<FromWorker>(&said, FRAME_MAX).unwrap() {
            messages.push(frame.message);
            said.drain(..frame.end);
        }
        messages
    };
    let (ready, reply) = (FromWorker::Ready, FromWorker::Reply { id: 1 });
    // An older host gives it no pipe; a program in between may have closed that.
    assert_eq!(run("3", false), [FromWorker::Hello { protocol: 3 }, ready, reply, ready]);
    for (has_pipe, protocol) in [(true, PROTOCOL), (false, PIPES - 1)] {
        let now = run("200", has_pipe);
        let hello = FromWorker::Hello { protocol };
        let FromWorker::Memory { kib: 100.. } = now[2] else { panic!("{now:?}") };
        assert_eq!([now[0], now[1], now[3], now[4]], [hello, ready, reply, ready]);
    }
}

/// Copies the example functions; what they link to is what this test run has built.
fn copy(site: &Site) {
    for entry in fs::read_dir(project().join("examples")).unwrap() {
        let entry = entry.unwrap();
        // The worked example is several functions, and has a command of its own.
        if !entry.path().join("function.toml").exists() {
            continue;
        }
        let folder = site.functions().join(entry.file_name());
        fs::create_dir(&folder).unwrap();
        for file in fs::read_dir(entry.path()).unwrap() {
            let file = file.unwrap();
            let target = folder.join(file.file_name());
            if file.file_type().unwrap().is_symlink() {
                let link = fs::read_link(file.path()).unwrap();
                symlink(example(link.file_name().unwrap().to_str().unwrap()), target).unwrap();
            } else {
                fs::copy(file.path(), target).unwrap();
            }
        }
    }
}

#[test]
fn every_example_runs() {
    let site = Site::new();
    copy(&site);
    let server = site.serve(&[]);
    let list = server.get("/hob/functions");
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    let all = ["hello-exec", "hello-native", "hello-node", "hello-provided", "hello-python"];
    assert_eq!(names, all);
    for name in names {
        for n in 1..3 {
            let reply = server.ok(name, &format!("{{\"n\":{n}}}"));
            assert_eq!(reply["hello"], name.strip_prefix("hello-").unwrap());
            assert_eq!(reply["event"]["n"], n);
        }
        let path = format!("/fn/{name}/some/path?a=b");
        let reply = server.connect().post(&path, &[], b"text");
        assert_eq!(reply.json()["event"]["rawPath"], "/some/path", "{}", reply.text());
        let log = server.hob(&["logs", name]).out;
        assert_eq!(log.matches("invocation ").count(), 3, "{log}");
    }
    server.stop();
}

#[test]
fn the_readme_quotes_what_the_worked_example_expects() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let script = fs::read_to_string(project().join("examples/order/run")).unwrap();
    let table = readme.lines().skip_while(|line| !line.starts_with("    REQUEST ")).skip(1);
    let rows: Vec<&str> = table.take_while(|line| !line.is_empty()).collect();
    assert_eq!(
        rows.len(),
        script.matches("\nexpect ").count() + script.matches("\ntogether ").count()
    );
    for row in rows {
        let (what, status) = (row[4..36].trim_end(), row[37..52].trim_end());
        let said = [format!("{what:?} {status} "), format!("{what:?} {status:?} ")];
        assert!(said.iter().any(|said| script.contains(said)), "{row}");
    }
}

#[test]
fn the_readme_shows_the_commands_of_the_aws_cli() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let script = fs::read_to_string(project().join("examples/manage/commands.sh")).unwrap();
    // All but its first line, which says what it is.
    let (_, commands) = script.split_once('\n').unwrap();
    assert!(readme.contains(&format!("```bash\n{commands}```\n")), "they differ");
}

/// The commands of README's `sh` blocks, in order; a block may be continued by later ones.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(project().join("README.md")).unwrap();
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_end() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.starts_with('#') && !line.is_empty() => {
                let joined = commands.last_mut().filter(|last| last.ends_with('\\'));
                match joined {
                    Some(last) => {
                        last.pop();
                        last.push_str(line);
                    }
                    None => commands.push(line.to_owned()),
                }
            }
            _ => {}
        }
    }
    commands
}

/// Servers that README starts, ended with the test.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn every_command_of_the_readme_works() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    let shell = |command: &str| {
        // `hob` is the binary that README builds; state goes to a scratch directory.
        let path = std::env::var("PATH").unwrap();
        let built = project().join("target/release");
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", command])
            .current_dir(project())
            .env("PATH", format!("{}:{path}", built.display()))
            .env("HOB_SOCKET", place("hob.sock"))
            .env("HOB_DATA", place("data"))
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null());
        shell
    };
    let mut running = Running(Vec::new());
    let commands = commands();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        println!("$ {command}");
        if command.contains("hob serve") || command.contains("-- serve") {
            let log = fs::File::create(place("log")).unwrap();
            running.0.push(shell(&format!("exec {command}")).stderr(log).spawn().unwrap());
            wait_for(&place("log"));
            continue;
        }
        let elsewhere = ["tests/run", "cross/build", "examples/order/run", "examples/manage/run"];
        if elsewhere.contains(&&*command) {
            // The first is what runs this test, and the examples besides; the second builds what the
            // budget is measured on.
            assert!(project().join(command.split(' ').next().unwrap()).exists(), "{command}");
            continue;
        }
        let output = shell(&command).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command}: {}\n{out}{err}", output.status);
        // An error of the API is a reply like any other for curl: look at what came.
        assert!(!command.starts_with("curl") || out.contains("\"hello\":"), "{command}: {out}");
    }
}

/// A release build may come first: the wait is for the server's word, or its end.
fn wait_for(log: &PathBuf) {
    let begun = std::time::Instant::now();
    let ready = || fs::read_to_string(log).unwrap_or_default().contains("hello-exec: exec ready");
    while !ready() {
        let text = fs::read_to_string(log).unwrap_or_default();
        assert!(begun.elapsed().as_secs() < 600, "{text}");
        assert!(!text.contains("hob: "), "{text}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    eventually("the server is ready", || Some(()));
}
