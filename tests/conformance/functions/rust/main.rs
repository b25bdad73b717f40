//! Does what its event says, on lambda_runtime.

#![allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, exit, id as pid};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::{
    Context, Error, LambdaEvent, run, service_fn, spawn_graceful_shutdown_handler,
};
use serde_json::{Value, json};
use tokio::time::sleep;

mod stream;

static COUNT: AtomicU32 = AtomicU32::new(0);

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

fn number(event: &Value, key: &str) -> usize {
    event[key].as_u64().unwrap_or_default().try_into().unwrap_or_default()
}

fn tell(context: &Context) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let client = context.client_context.as_ref().map(
        |client| json!({"installation": client.client.installation_id, "custom": client.custom}),
    );
    let config = &context.env_config;
    json!({
        "request": context.request_id,
        "function": config.function_name,
        "version": config.version,
        "memory": config.memory.to_string(),
        "arn": context.invoked_function_arn,
        "remaining": i128::from(context.deadline) - now.cast_signed(),
        "group": config.log_group,
        "stream": config.log_stream,
        "identity": context.identity,
        "client": client,
    })
}

async fn meet(event: &Value, context: &Context) -> Result<Value, Error> {
    let place = Path::new(text(event, "place"));
    fs::write(place.join(&context.request_id), "")?;
    while fs::read_dir(place)?.count() < number(event, "count") {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(json!({"pid": pid()}))
}

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let LambdaEvent { payload: event, context } = event;
    match text(&event, "do") {
        "nothing" => Ok(Value::Null),
        "big" => Ok("x".repeat(number(&event, "size")).into()),
        "context" => Ok(tell(&context)),
        "environment" => Ok(json!({
            "directory": std::env::current_dir()?,
            "variables": std::env::vars().collect::<BTreeMap<_, _>>(),
        })),
        "count" => {
            let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(json!({"count": count, "pid": pid()}))
        }
        "say" => {
            println!("{} out", text(&event, "text"));
            eprintln!("{} err", text(&event, "text"));
            Ok(Value::Null)
        }
        "fail" => Err(text(&event, "message").into()),
        "exit" => exit(number(&event, "status").try_into()?),
        "kill" => {
            Command::new("kill").args(["-9", &pid().to_string()]).status()?;
            sleep(Duration::from_secs(60)).await;
            Ok(Value::Null)
        }
        "sleep" => {
            sleep(Duration::from_secs(event["seconds"].as_u64().unwrap_or_default())).await;
            Ok(Value::Null)
        }
        "meet" => meet(&event, &context).await,
        _ => Ok(event),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if std::env::var("_HANDLER")? == "broken" {
        return Err("broken by intention".into());
    }
    if let Ok(path) = std::env::var("CLEANUP") {
        // It registers an internal extension, as SIGTERM on AWS needs one.
        let hook = async move || fs::write(path, pid().to_string()).unwrap_or_default();
        spawn_graceful_shutdown_handler(hook).await;
    }
    if std::env::var("_HANDLER")? == "stream" {
        return run(service_fn(stream::handler)).await;
    }
    run(service_fn(handler)).await
}
