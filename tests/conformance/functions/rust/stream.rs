//! A reply that is streamed, as the event says.

use std::path::Path;
use std::time::Duration;

use lambda_runtime::streaming::{Body, Response, channel};
use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use tokio::time::sleep;

/// Sends `parts`, after the first of them waits for the file `gate`, then sends `size` bytes, and
/// breaks off if there is `fail`.
pub async fn handler(event: LambdaEvent<Value>) -> Result<Response<Body>, Error> {
    let (mut to, body) = channel();
    let event = event.payload;
    tokio::spawn(async move {
        let gate = event["gate"].as_str().filter(|gate| !gate.is_empty());
        for (n, part) in event["parts"].as_array().into_iter().flatten().enumerate() {
            to.send_data(part.as_str().unwrap_or_default().to_owned().into()).await?;
            while n == 0 && gate.is_some_and(|gate| !Path::new(gate).exists()) {
                sleep(Duration::from_millis(5)).await;
            }
        }
        let mut left = event["size"].as_u64().unwrap_or(0);
        while left > 0 {
            let here = left.min(50_000);
            to.send_data(vec![b'x'; here.try_into()?].into()).await?;
            left -= here;
        }
        if event["fail"].is_string() {
            to.abort();
        }
        Ok::<(), Error>(())
    });
    Ok(Response::from(body))
}
