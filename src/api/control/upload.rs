//! Bodies that are larger than the server wants to be: to the disk first, then to a helper.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::fields::Fields;
use crate::api::auth::{Caller, Claimed};
use crate::api::error::ApiError;
use crate::api::{Api, End};
use crate::function::package::BAD_ZIP;
use crate::function::record::CodeRecord;
use crate::function::store::{Refused as Trouble, Taken};
use crate::http::connection::Broken;
use crate::http::{Connection, Head, Refused};
use crate::limits::{UPLOAD_BYTES_MAX, ZIP_BYTES_MAX};

/// A file on its way in, which goes with this if nobody has taken it.
pub struct Incoming(PathBuf);

impl Incoming {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for Incoming {
    fn from(path: PathBuf) -> Incoming {
        Incoming(path)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Who took it has moved or removed it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a request's body to a file, piece by piece, and says who sent it; `too_long` is what
/// clients are told whose body has more than `most` bytes.
pub async fn receive<'a>(
    api: &Api,
    connection: &mut Connection,
    head: &Head,
    mut claimed: Claimed<'a>,
    (most, too_long): (usize, impl FnOnce() -> ApiError),
) -> Result<(Incoming, Caller<'a>), End> {
    // What is received while the server still cleans its store would be cleaned away.
    drop(api.change().await?);
    let incoming = Incoming(api.store.incoming(api.host.random()));
    let trouble = |error: io::Error| {
        let path = incoming.path().display();
        End::from(ApiError::service(500, format!("write {path}: {error}")))
    };
    let mut file = File::create_new(incoming.path()).map_err(trouble)?;
    let too_long = |broken: Broken| match broken {
        Broken::Refused(Refused::BodyTooLong) => End::from(too_long()),
        Broken::Refused(_) | Broken::Closed => broken.into(),
    };
    let mut pieces = match connection.pieces(head, most).await {
        Ok(pieces) => pieces,
        Err(broken) => return Err(too_long(broken)),
    };
    loop {
        match pieces.next(connection).await {
            Ok(Some(range)) => {
                let piece = &connection.bytes()[range];
                claimed.update(piece);
                file.write_all(piece).map_err(trouble)?;
            }
            Ok(None) => return Ok((incoming, claimed.finish()?)),
            Err(broken) => return Err(too_long(broken)),
        }
    }
}

/// The body of a request that may have a zip in it.
pub async fn receive_request<'a>(
    api: &Api,
    connection: &mut Connection,
    head: &Head,
    claimed: Claimed<'a>,
    operation: &str,
) -> Result<(Incoming, Caller<'a>), End> {
    let too_long = || {
        ApiError::entity_too_large(format!(
            "Request must be smaller than {UPLOAD_BYTES_MAX} bytes for the {operation} operation"
        ))
    };
    receive(api, connection, head, claimed, (UPLOAD_BYTES_MAX, too_long)).await
}

/// Takes the zip out of a request, and its code into the store. Only for who holds the changes.
pub async fn take(
    api: &Rc<Api>,
    upload: Incoming,
    member: &str,
) -> Result<(Fields, Option<CodeRecord>), ApiError> {
    let (host, store) = (&api.host, &api.store);
    // Before the zip is unpacked: what that adds has no name yet.
    host.discard_unused(store.data()).await;
    // If this comes to nothing, nobody will name it.
    host.has_unused();
    let (data, path) = (store.data().display().to_string(), upload.path().display().to_string());
    let printed = host.helper(&["take", &data, &path, member]).await;
    let printed = printed.map_err(|error| ApiError::service(500, error))?;
    let taken: Result<Result<Taken, Trouble>, _> = serde_json::from_str(&printed);
    match taken {
        Ok(Ok(Taken { request, code })) => Ok((Fields::from(request), code)),
        Ok(Err(trouble)) => Err(refused(trouble)),
        Err(error) => Err(ApiError::service(500, format!("helper take: {error}"))),
    }
}

/// What a client hears of what a helper refused.
pub fn refused(trouble: Trouble) -> ApiError {
    match trouble {
        Trouble::Content(message) => ApiError::invalid_content(message),
        // Clients know these words; what is behind them is for the operator.
        Trouble::Parameter(message) if message.starts_with(BAD_ZIP) => {
            log::warn!("upload: {message}");
            ApiError::invalid_parameter(BAD_ZIP)
        }
        Trouble::Parameter(message) => ApiError::invalid_parameter(message),
        Trouble::Zipped => ApiError::entity_too_large(format!(
            "Zipped size must be smaller than {ZIP_BYTES_MAX} bytes"
        )),
        Trouble::Store(message) => ApiError::service(500, message),
    }
}
