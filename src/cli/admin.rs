//! Verbs that look at a server or change its functions.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::client::{Body, Target, segment};
use super::{print, table};
use crate::error::Error;
use crate::function::package;
use crate::io::Clock;
use crate::limits::ZIP_BYTES_MAX;

/// `hob ls`
pub fn list(target: &Target, json: bool) -> Result<(), Error> {
    let functions = target.ask("GET", "/hob/functions", Body::Empty)?;
    if json {
        print(&format!("{functions:#}\n"));
        return Ok(());
    }
    let keys = ["name", "runtime", "state", "version", "workers"];
    let heading = ["NAME", "RUNTIME", "STATE", "VERSION", "WORKERS"];
    print(&table::render(&heading, &rows(&functions, &keys)));
    Ok(())
}

/// `hob ps`
pub fn processes(target: &Target, json: bool, watch: bool) -> Result<(), Error> {
    loop {
        let workers = target.ask("GET", "/hob/workers", Body::Empty)?;
        let text = if json {
            format!("{workers:#}\n")
        } else {
            let keys = [
                "slot",
                "function",
                "version",
                "state",
                "pid",
                "uptime_s",
                "idle_s",
                "invocations",
                "pss_kib",
            ];
            let heading = [
                "SLOT",
                "FUNCTION",
                "VERSION",
                "STATE",
                "PID",
                "UPTIME_S",
                "IDLE_S",
                "INVOCATIONS",
                "PSS_KIB",
            ];
            table::render(&heading, &rows(&workers, &keys))
        };
        if !watch {
            print(&text);
            return Ok(());
        }
        // Home, the new picture, and clear what is left of the old one.
        print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")));
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

fn rows(list: &Value, keys: &[&str]) -> Vec<Vec<String>> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| keys.iter().map(|key| cell(&item[*key])).collect()).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

/// `hob show NAME`
pub fn show(target: &Target, name: &str, json: bool) -> Result<(), Error> {
    let function = target.ask("GET", &format!("/hob/functions/{}", segment(name)), Body::Empty)?;
    if json {
        print(&format!("{function:#}\n"));
        return Ok(());
    }
    let mut text = String::new();
    for (key, value) in function.as_object().into_iter().flatten() {
        let lines: Vec<String> = match value {
            Value::Array(items) => items.iter().map(cell).collect(),
            Value::Object(pairs) => {
                pairs.iter().map(|(name, value)| format!("{name}: {}", cell(value))).collect()
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                vec![cell(other)]
            }
        };
        let mut label = key.as_str();
        for line in &lines {
            text += format!("{label:<24} {line}").trim_end();
            text += "\n";
            label = "";
        }
    }
    print(&text);
    Ok(())
}

/// `hob rm NAME`
pub fn remove(target: &Target, name: &str) -> Result<(), Error> {
    target.ask("DELETE", &format!("/hob/functions/{}", segment(name)), Body::Empty)?;
    print(&format!("removed {name}\n"));
    Ok(())
}

/// `hob push DIR|ZIP`
pub fn push(target: &Target, path: &Path, name: Option<String>) -> Result<(), Error> {
    if path.is_dir() && !path.join("function.toml").exists() {
        return Err(Error::doing("push", path.display(), "there is no function.toml in it"));
    }
    let Zip { name, mut file, length } = Zip::of(path, name)?;
    let place = format!("/hob/functions/{}", segment(&name));
    let answer = target.ask("PUT", &place, Body::Stream(&mut file, length))?;
    print(&format!("pushed {name} ({length} bytes, {} ms)\n", cell(&answer["ms"])));
    Ok(())
}

/// `hob push --layer DIR|ZIP`: what everybody else sends too, to publish a version of a layer.
pub fn push_layer(target: &Target, path: &Path, name: Option<String>) -> Result<(), Error> {
    let fail = |cause: &dyn std::fmt::Display| Error::doing("push", path.display(), cause);
    let Zip { name, mut file, length } = Zip::of(path, name)?;
    if length > ZIP_BYTES_MAX as u64 {
        return Err(fail(&format_args!("a zip of more than {ZIP_BYTES_MAX} bytes")));
    }
    let mut request = encoded(&mut file).map_err(|error| fail(&error))?;
    let length = request.stream_position().map_err(|error| fail(&error))?;
    request.rewind().map_err(|error| fail(&error))?;
    let place = format!("/2018-10-31/layers/{}/versions", segment(&name));
    let answer = target.ask("POST", &place, Body::Stream(&mut request, length))?;
    let (version, arn) = (cell(&answer["Version"]), cell(&answer["LayerVersionArn"]));
    print(&format!("layer {name}:{version} {arn}\n"));
    Ok(())
}

/// A request with this zip in it: on the disk, since it may be larger than a small board likes.
fn encoded(zip: &mut File) -> std::io::Result<File> {
    let mut request = scratch()?;
    request.write_all(b"{\"Content\":{\"ZipFile\":\"")?;
    // Pieces that are whole in base64.
    let mut piece = Vec::with_capacity(48 * 1024);
    while Read::by_ref(zip).take(48 * 1024).read_to_end(&mut piece)? > 0 {
        request.write_all(BASE64_STANDARD.encode(&piece).as_bytes())?;
        piece.clear();
    }
    request.write_all(b"\"}}")?;
    Ok(request)
}

/// What is pushed.
struct Zip {
    /// The name that was given, or else the file's.
    name: String,
    file: File,
    length: u64,
}

impl Zip {
    /// A zip, or a folder that is made one.
    fn of(path: &Path, name: Option<String>) -> Result<Zip, Error> {
        let fail = |cause: &dyn std::fmt::Display| Error::doing("push", path.display(), cause);
        let full = std::fs::canonicalize(path).map_err(|error| fail(&error))?;
        let stem = full.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut file = if full.is_dir() {
            let mut zip = scratch().map_err(|error| fail(&error))?;
            package::pack(&full, &mut zip).map_err(|error| fail(&error))?;
            zip
        } else {
            File::open(&full).map_err(|error| fail(&error))?
        };
        let length = file.seek(std::io::SeekFrom::End(0)).map_err(|error| fail(&error))?;
        file.rewind().map_err(|error| fail(&error))?;
        Ok(Zip { name: name.unwrap_or(stem), file, length })
    }
}

/// A file without a name, gone when it is closed.
fn scratch() -> std::io::Result<File> {
    // Nobody else's file or link may stand there already, and nobody else reads ours.
    let name = format!("hob-push-{}-{:016x}.zip", std::process::id(), fastrand::u64(..));
    let path = std::env::temp_dir().join(name);
    let file = File::options().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// `hob logs NAME`
pub fn logs(target: &Target, name: &str, follow: bool, since_s: Option<u64>) -> Result<(), Error> {
    let since = since_s.map_or(0, |s| Clock::unix_ms().saturating_sub(s.saturating_mul(1000)));
    let follow = if follow { "&follow=1" } else { "" };
    let path = format!("/hob/logs/{}?since_ms={since}{follow}", segment(name));
    let mut reply = target.send("GET", &path, &[], Body::Empty)?;
    if reply.status > 299 {
        let body = reply.bytes()?;
        return Err(reply.error(&body));
    }
    let mut out = std::io::stdout().lock();
    while let Some(piece) = reply.piece()? {
        if out.write_all(&piece).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}
