//! Code as a zip: where `Code.Location` leads. Its name is a digest, which nobody can guess; as on
//! Lambda, whoever was told the address needs no other credentials.

use std::fs::File;
use std::io::Read;
use std::rc::Rc;

use super::upload::Incoming;
use crate::api::error::ApiError;
use crate::api::{Api, End};
use crate::http::{Connection, Head};
use crate::limits::DOWNLOAD_SEND;

/// Sends the zip with this SHA-256, or packs the code with this digest.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    digest: &str,
) -> Result<(), End> {
    let is_digest = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    let missing = || ApiError::not_found("There is no code of this name.");
    if !is_digest {
        return Err(missing().into());
    }
    let fail = |error: std::io::Error| ApiError::service(500, format!("read code: {error}"));
    let mut packed = None;
    let path = if api.store.zip(digest).exists() {
        api.store.zip(digest)
    } else if api.store.code(digest).is_dir() {
        let zip = packed.insert(Incoming::from(api.store.incoming(api.host.random())));
        let (code, to) = (api.store.code(digest), zip.path().display().to_string());
        let made = api.host.helper(&["pack", &code.display().to_string(), &to]).await;
        made.map_err(|error| ApiError::service(500, error))?;
        zip.path().to_owned()
    } else {
        return Err(missing().into());
    };
    let mut file = File::open(path).map_err(fail)?;
    // Open is enough: nothing takes its content away now.
    drop(packed);
    let length = file.metadata().map_err(fail)?.len();
    let whole = connection.discard(head).await;
    let reply = connection
        .reply(200)
        .field("Content-Type", "application/zip")
        .field("Content-Disposition", "attachment; filename=\"code.zip\"")
        .connection(head, whole && head.keep_alive)
        .body(usize::try_from(length).unwrap_or(usize::MAX));
    let mut piece = vec![0; DOWNLOAD_SEND];
    let mut left = length;
    let mut first = Some(reply);
    loop {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut piece[..most]).map_err(|_| End::Closed)?;
        left -= read as u64;
        match first.take() {
            Some(reply) => connection.send(reply, &piece[..read]).await?,
            None => connection.send_part(&piece[..read]).await?,
        }
        if left == 0 {
            return if whole { Ok(()) } else { Err(End::Closed) };
        }
        if read == 0 {
            // Shorter than it was: the client must not take it for whole.
            return Err(End::Closed);
        }
    }
}
