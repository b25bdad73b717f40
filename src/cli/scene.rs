//! A server of our own for a while, with sample functions and data in a directory that goes with it.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_process::{Child, Command, Stdio};
use serde_json::Value;

use super::client::{Body, Target};
use crate::error::Error;
use crate::function::tree;
use crate::io::Clock;

/// The directory.
pub struct Scene {
    root: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.root) {
            super::say(&format!("hob: remove {}: {error}", self.root.display()));
        }
    }
}

impl Scene {
    /// An empty one, which has this word in its name.
    pub fn set(purpose: &str) -> std::io::Result<Scene> {
        // Code runs from here: nobody else may have made it, or write to it.
        let name = format!("hob-{purpose}-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let root = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&root)?;
        Ok(Scene { root })
    }

    /// Adds a function whose handler is this program, with one of its verbs, and `more` in its
    /// `function.toml`.
    pub fn own(&self, name: &str, runtime: &str, verb: &str, more: &str) -> std::io::Result<()> {
        let folder = self.function(name, runtime, &format!("hob {verb}"), more)?;
        std::os::unix::fs::symlink(std::env::current_exe()?, folder.join("hob"))
    }

    /// Adds a function whose handler is a script.
    pub fn script(&self, name: &str, runtime: &str, text: &str) -> std::io::Result<()> {
        let file = self.function(name, runtime, "bootstrap", "")?.join("bootstrap");
        std::fs::write(&file, text)?;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))
    }

    /// Adds a function that has nothing but its `function.toml`; its folder.
    pub fn function(
        &self,
        name: &str,
        runtime: &str,
        handler: &str,
        more: &str,
    ) -> std::io::Result<PathBuf> {
        let folder = self.root.join("functions").join(name);
        std::fs::create_dir_all(&folder)?;
        let text = format!("runtime = \"{runtime}\"\nhandler = \"{handler}\"\n{more}\n");
        std::fs::write(folder.join("function.toml"), text)?;
        Ok(folder)
    }

    /// Where the server listens.
    pub fn socket(&self) -> PathBuf {
        self.root.join("hob.sock")
    }

    /// Starts the server with these arguments besides, and waits until all functions are there.
    pub async fn start(&self, arguments: &[&str]) -> Result<Child, Error> {
        let fail = |error: std::io::Error| Error::doing("start", "the server", error);
        let own = std::env::current_exe().map_err(fail)?;
        let place = |name: &str| self.root.join(name).into_os_string();
        let mut server = Command::new(own)
            .arg("serve")
            .arg(place("functions"))
            .args([OsStr::new("--data"), &place("data")])
            .args([OsStr::new("--socket"), &place("hob.sock")])
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            // Functions fail here on purpose: that they do is in what is printed.
            .env("HOB_LOG", "error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let answers = async {
            for _ in 0..500 {
                let server = self.ask("GET", "/hob/server").await;
                if server.is_ok_and(|server| server["loading"] == false) {
                    return Ok(());
                }
                smol::Timer::after(Duration::from_millis(10)).await;
            }
            Err(Error::failed("start the server: it does not answer"))
        };
        let died = async {
            let status = server.status().await;
            Err(Error::failed(format!("start the server: {status:?}")))
        };
        smol::future::or(answers, died).await?;
        Ok(server)
    }

    /// The server's answer to a question.
    pub async fn ask(&self, method: &'static str, path: &'static str) -> Result<Value, Error> {
        let target = Target::Socket(self.socket());
        smol::unblock(move || target.ask(method, path, Body::Empty)).await
    }
}

/// Ends the server as an operator would; how long that took, in microseconds.
pub async fn stop(server: &mut Child) -> Result<u64, Error> {
    let begun = Clock::start();
    let pid = i32::try_from(server.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| Error::doing("signal", "the server", error))?;
    }
    let status =
        server.status().await.map_err(|error| Error::doing("wait", "the server", error))?;
    if !status.success() {
        return Err(Error::failed(format!("the server ended with {status}")));
    }
    Ok(begun.now().as_micros())
}

/// True if this program is where Debian, Alpine and others have it.
pub fn has(program: &str) -> bool {
    ["/usr/bin", "/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
}
