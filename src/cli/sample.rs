//! `hob sample`: a native handler inside the binary, for the demo.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Error;
use crate::handler::{self, Failure};

/// Echoes its event and counts; sleeps, fails, hangs or crashes on request.
pub fn run() -> Result<(), Error> {
    let mut count = 0u64;
    let result = handler::run(|event, context| {
        let event: Value = serde_json::from_slice(event)?;
        match event["do"].as_str() {
            Some("sleep") => {
                let ms = event["ms"].as_u64().unwrap_or(0).min(60_000);
                std::thread::sleep(Duration::from_millis(ms));
            }
            Some("fail") => return Err(Failure::new("SampleError", "as requested")),
            Some("crash") => std::process::abort(),
            Some("hang") => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            _ => {}
        }
        count += 1;
        let reply = json!({ "echo": event, "count": count, "request_id": context.request_id });
        Ok(reply.to_string().into_bytes())
    });
    result.map_err(|error| Error::failed(format!("speak the wire: {error}")))
}
