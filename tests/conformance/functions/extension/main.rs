//! An external extension on lambda-extension that writes down what it hears.

use std::fs::File;
use std::io::Write;

use lambda_extension::{Error, LambdaEvent, NextEvent, run, service_fn};

async fn hear(event: LambdaEvent) -> Result<(), Error> {
    let heard = match event.next {
        NextEvent::Invoke(event) => {
            let (id, arn) = (event.request_id, event.invoked_function_arn);
            format!("INVOKE {id} {arn} {} {}", event.deadline_ms, event.tracing.value)
        }
        NextEvent::Shutdown(event) => {
            format!("SHUTDOWN {} {}", event.shutdown_reason, event.deadline_ms)
        }
    };
    let mut file = File::options().create(true).append(true).open(std::env::var("HEARD")?)?;
    writeln!(file, "{heard}")?;
    println!("heard {heard}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(hear)).await
}
