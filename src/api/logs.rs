//! A function's log, streamed as text.

use std::rc::Rc;

use super::error::ApiError;
use super::{Api, End};
use crate::http::{Connection, Head};
use crate::io::reactor::Interest;
use crate::limits::LOG_SEND;

/// Sends what the log holds of `name` since `since_ms`; with `follow`, goes on until the client
/// leaves.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    name: &str,
    follow: bool,
    since_ms: u64,
) -> Result<(), End> {
    let mut known = api.host.catalog.borrow().function(name).is_some();
    // A function that is gone may have left something.
    api.host.logs.read(0, |record| {
        known |= record.function == name;
        !known
    });
    if !known {
        return Err(ApiError::not_found(format!("Function not found: {name}")).into());
    }
    connection.body(head, 0).await?;
    connection.asked();
    let reply = connection
        .reply(200)
        .field("Content-Type", "text/plain; charset=utf-8")
        .connection(head, head.keep_alive)
        .chunked();
    connection.send(reply, b"").await?;
    let logs = &api.host.logs;
    let mut at = 0;
    loop {
        let mut text = Vec::new();
        at = logs.read(at, |record| {
            let room = text.len() < LOG_SEND;
            if room && record.function == name && record.at_ms >= since_ms {
                record.print(&mut text);
            }
            room
        });
        if !text.is_empty() {
            let size = format!("{:x}\r\n", text.len());
            text.splice(..0, size.into_bytes());
            text.extend(b"\r\n");
            connection.send_part(&text).await?;
        }
        if at >= logs.end() {
            if !follow || api.host.is_draining() {
                break;
            }
            // Who follows has nothing more to say: the end of its side means that it left.
            let more = async {
                logs.reached(at).await;
                true
            };
            let left = async {
                connection.io().ready(Interest::Ended).await;
                false
            };
            if !smol::future::or(more, left).await {
                return Err(End::Closed);
            }
        }
    }
    connection.send_part(b"0\r\n\r\n").await?;
    Ok(())
}
