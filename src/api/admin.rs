//! What hob's own command line asks: tables for people, changes to functions.

use std::rc::Rc;

use serde_json::{Value, json};

use super::auth::Claimed;
use super::control::upload::{self, Incoming};
use super::control::{CHANGE_IT, no_built_in, no_folder, push as push_code};
use super::error::ApiError;
use super::route::Admin;
use super::{Api, End, logs, reply};
use crate::function::name::is_name;
use crate::function::store::Part;
use crate::host::catalog::{Function, Source, Version};
use crate::host::worker::Worker;
use crate::http::{Connection, Head};
use crate::limits::ZIP_BYTES_MAX;
use crate::pool::{Instant, State};
use crate::runtime::extensions::Program;
use crate::runtime::paths::Paths;

/// Serves one request of the command line.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    admin: Admin,
) -> Result<(), End> {
    let claimed = api.check(connection, head)?;
    let (action, name) = admin.action();
    claimed.may(action, name)?;
    if let Admin::Push(name) = &admin {
        let body = push(api, connection, head, name, claimed).await?.to_string();
        return reply(connection, head, 200, "application/json", body.as_bytes()).await;
    }
    claimed.unused_body(connection, head).await?;
    let answer = match admin {
        Admin::Logs { name, follow, since_ms } => {
            return logs::serve(api, connection, head, &name, follow, since_ms).await;
        }
        Admin::Push(_) => unreachable!("answered above"),
        Admin::Server => server(api),
        Admin::Functions => functions(api),
        Admin::Function(name) => function(api, &name)?,
        Admin::Remove(name) => remove(api, &name).await?,
        Admin::Workers => workers(api),
        Admin::Reload => {
            (api.reload)();
            json!({ "reloading": true })
        }
    };
    let body = answer.to_string();
    reply(connection, head, 200, "application/json", body.as_bytes()).await
}

fn server(api: &Api) -> Value {
    let host = &api.host;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "slots": host.look(|pool| pool.view().len()),
        "functions": host.catalog.borrow().functions().len(),
        "in_flight": host.in_flight(),
        "url": host.facts.endpoint,
        "paths": host.facts.paths.to_string(),
        "uptime_s": host.reactor.now().as_micros() / 1_000_000,
        "loading": host.is_loading(),
        "draining": host.is_draining(),
    })
}

fn functions(api: &Api) -> Value {
    let catalog = api.host.catalog.borrow();
    catalog.functions().iter().map(|function| summary(api, function)).collect()
}

fn summary(api: &Api, function: &Function) -> Value {
    let (runtime, state) = match &function.state {
        Ok(version) => (Some(version.config.runtime.id().to_owned()), "active"),
        Err(_) => (None, "refused"),
    };
    let live = api.host.look(|pool| {
        let version = function.state.as_ref().ok().and_then(|v| pool.version(v.id));
        version.map_or(0, |version| version.live())
    });
    json!({
        "name": &*function.name,
        "runtime": runtime,
        "state": state,
        "version": "$LATEST",
        "workers": live,
    })
}

fn function(api: &Api, name: &str) -> Result<Value, ApiError> {
    let catalog = api.host.catalog.borrow();
    let function = catalog
        .function(name)
        .ok_or_else(|| ApiError::not_found(format!("Function not found: {name}")))?;
    let mut value = summary(api, function);
    value["arn"] = api.host.facts.home.arn(name, None).to_string().into();
    value["source"] = match &function.source {
        Source::Folder(path) => path.display().to_string().into(),
        Source::Pushed => "pushed".into(),
    };
    match &function.state {
        Err(issues) => value["issues"] = issues.clone().into(),
        Ok(version) => {
            let config = &version.config;
            let settings = version.settings(api.host.defaults.get());
            value["handler"] = config.handler.clone().into();
            value["code"] = version.code.display().to_string().into();
            value["layers"] = config.layers.clone().into();
            value["paths"] = paths(api, version);
            value["timeout_s"] = config.timeout_s.into();
            value["memory_mb"] = config.memory_mb.into();
            value["reserved_concurrency"] = config.reserved_concurrency.into();
            value["provisioned_concurrency"] = config.provisioned_concurrency.into();
            value["queue_wait_ms"] = settings.queue_wait_ms.into();
            value["idle_timeout_s"] = (settings.idle_timeout_ms / 1000).into();
            value["shutdown_grace_ms"] = settings.grace_ms.into();
            value["zygote"] = zygote(api, version);
            value["spare"] = spare(api, version);
            value["not_in_force"] = config.not_in_force.clone().into();
            value["limits"] = json!({
                "timeout": "enforced by the server: SIGTERM, then SIGKILL to the process group",
                "concurrency": "enforced by the slot table",
                "files": "enforced by rlimit",
                "memory": "not enforced by this build",
                "user": "not enforced by this build: workers run as the server's user",
            });
        }
    }
    Ok(value)
}

/// What the workers of a version are forked from, or why they are not.
fn zygote(api: &Api, version: &Version) -> Value {
    let now = api.host.reactor.now();
    match api.host.zygotes.of(version.id) {
        Some(zygote) => json!({
            "pid": zygote.process.pid(),
            "uptime_s": now.micros_since(zygote.started) / 1_000_000,
            "forks": zygote.forks.get(),
            "pss_kib": pss_kib(zygote.process.pid()),
        }),
        None if version.forks(now) => "starts with the first worker".into(),
        None => match &*version.unforkable.borrow() {
            Some(unforkable) => format!("none: {}", unforkable.why).into(),
            None => Value::Null,
        },
    }
}

/// The worker of a version that was made before it is wanted.
fn spare(api: &Api, version: &Version) -> Value {
    match api.host.spares.pid(version.id) {
        Some(pid) => json!({ "pid": pid, "pss_kib": pss_kib(pid) }),
        None => Value::Null,
    }
}

/// What workers see of the disk.
fn paths(api: &Api, version: &Version) -> Value {
    let paths = &api.host.facts.paths;
    match (&version.launch.namespace, paths) {
        (None, Paths::Namespace(_)) => {
            format!("the real ones, as {} has them", version.config.runtime.id()).into()
        }
        (Some(_), _) if version.launch.has_variable("HOB_OPT") => {
            format!("{paths}, but layers in HOB_OPT: something else is needed below /opt").into()
        }
        (Some(_) | None, _) => paths.to_string().into(),
    }
}

async fn remove(api: &Rc<Api>, name: &str) -> Result<Value, ApiError> {
    no_built_in(name)?;
    // What is true of the function stays true only as long as nobody else changes functions.
    let _change = api.change().await?;
    if api.host.catalog.borrow().function(name).is_none() {
        return Err(ApiError::not_found(format!("Function not found: {name}")));
    }
    no_folder(api, name, "remove the folder")?;
    api.host
        .helper(&["forget", &data(api), Part::Functions.directory(), name])
        .await
        .map_err(|error| ApiError::service(500, error))?;
    api.host.remove(name);
    Ok(json!({ "removed": name }))
}

fn workers(api: &Api) -> Value {
    let host = &api.host;
    let now = host.reactor.now();
    let states: Vec<&'static str> =
        host.look(|pool| pool.view().iter().map(|slot| state_name(&slot.state)).collect());
    host.workers()
        .iter()
        .map(|worker| {
            let state = states[usize::from(worker.id.slot)];
            row(worker, state, now)
        })
        .collect()
}

fn state_name(state: &State) -> &'static str {
    match state {
        State::Free => "free",
        State::Starting { .. } => "starting",
        State::Idle { .. } => "idle",
        State::Busy { .. } => "busy",
        State::Stopping { .. } => "stopping",
    }
}

fn row(worker: &Worker, state: &str, now: Instant) -> Value {
    let seconds = |since: Instant| now.micros_since(since) / 1_000_000;
    let idle = if state == "idle" { seconds(worker.used.get()) } else { 0 };
    let mut row = json!({
        "slot": worker.id.slot,
        "function": &*worker.version.name,
        "version": &*worker.version.label,
        "state": state,
        "pid": worker.process.pid(),
        "uptime_s": seconds(worker.spawned),
        "idle_s": idle,
        "invocations": worker.served.get(),
        "pss_kib": pss_kib(worker.process.pid()),
    });
    if let Some(crew) = &worker.crew {
        let pids = crew.pids().into_iter();
        let member = |(program, pid): (&Program, i32)| (program.name.clone(), Value::from(pid));
        row["extensions"] = worker.version.extensions.iter().zip(pids).map(member).collect();
    }
    row
}

/// Memory of a process, its part of shared pages included; `null` where the kernel does not tell.
fn pss_kib(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Takes a zip in: on disk first, then looked at, then put in force.
async fn push(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    name: &str,
    claimed: Claimed<'_>,
) -> Result<Value, End> {
    if !is_name(name) {
        let allowed = "letters, digits, - and _, at most 64";
        return Err(ApiError::invalid_parameter(format!(
            "{name:?} is no function name, allowed: {allowed}"
        ))
        .into());
    }
    no_built_in(name)?;
    if claimed.is_proven() {
        no_folder(api, name, CHANGE_IT)?;
    }
    let too_long = || ApiError::too_large(ZIP_BYTES_MAX);
    let zip = upload::receive(api, connection, head, claimed, (ZIP_BYTES_MAX, too_long)).await?.0;
    let started = api.host.reactor.now();
    install(api, name, zip).await?;
    let ms = api.host.reactor.now().micros_since(started) / 1000;
    Ok(json!({ "pushed": name, "ms": ms }))
}

/// Unpacks a zip, looks at it, and only then makes it the function's code.
async fn install(api: &Rc<Api>, name: &str, zip: Incoming) -> Result<(), ApiError> {
    let host = &api.host;
    let _change = api.change().await?;
    // A folder of this name may have come while the zip did.
    no_folder(api, name, CHANGE_IT)?;
    // Before the zip is unpacked: what that adds has no name yet.
    host.discard_unused(api.store.data()).await;
    let unpacked = host.helper(&["unpack", &data(api), &zip.path().display().to_string()]).await;
    let code = unpacked.map_err(ApiError::invalid_parameter)?;
    let code = serde_json::from_str(&code);
    let code = code.map_err(|error| ApiError::service(500, format!("helper unpack: {error}")))?;
    let pushed = push_code(api, name, code).await;
    if pushed.is_err() {
        // Nobody will name it.
        host.has_unused();
    }
    pushed
}

fn data(api: &Api) -> String {
    api.store.data().display().to_string()
}
