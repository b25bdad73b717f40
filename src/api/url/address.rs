//! How requests name a function URL: `/fn/NAME/...`, `/fn/NAME:ALIAS/...`, `/_url/ID/...`, or any
//! path at the host `ID.lambda-url.REGION...`; and what holds for it.

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::invoke::not_found;
use crate::function::name::{FunctionName, Name};
use crate::function::record::LATEST;
use crate::function::url::{URL_ID, Url, UrlId};
use crate::host::Host;
use crate::host::catalog::{Source, Version};

/// The function, or the alias of one, whose URL is meant.
pub struct Address {
    /// The function.
    pub name: Name,
    /// Its alias.
    pub alias: Option<Box<str>>,
}

impl Address {
    /// What stands in the path. A name that is too long names no function that could be here.
    pub fn named(host: &Host, text: &str) -> Result<Address, ApiError> {
        let (name, alias) = match text.split_once(':') {
            Some((name, alias)) => (name, Some(alias)),
            None => (text, None),
        };
        let missing = |_| not_found(host, FunctionName { name, qualifier: alias }, "");
        Ok(Address { name: Name::try_from(name).map_err(missing)?, alias: alias.map(Into::into) })
    }

    /// What an id stands for.
    pub async fn of(host: &Host, id: UrlId) -> Result<Address, ApiError> {
        host.know_url(id).await;
        let catalog = host.catalog.borrow();
        let (function, alias) = catalog.by_url(id).ok_or_else(|| none(&id.to_string()))?;
        let name = Name::try_from(&*function.name).map_err(|_| none(&id.to_string()))?;
        Ok(Address { name, alias: alias.map(Into::into) })
    }

    /// As it is found by.
    pub fn function(&self) -> FunctionName<'_> {
        FunctionName { name: &self.name, qualifier: self.alias.as_deref() }
    }
}

fn none(what: &str) -> ApiError {
    ApiError::not_found(format!("There is no function URL for {what}"))
}

/// The id in the host that a client asks, if that is a function URL's.
pub fn by_host(host: &[u8]) -> Option<UrlId> {
    // Nearly all requests are for another host, and an id's length tells.
    let (id, rest) = host.split_at_checked(URL_ID).filter(|(_, rest)| rest.starts_with(b"."))?;
    let (id, rest) = (str::from_utf8(id).ok()?, str::from_utf8(&rest[1..]).ok()?);
    let (service, rest) = rest.split_once('.')?;
    let is_url = service.eq_ignore_ascii_case("lambda-url") && !rest.is_empty();
    if is_url { UrlId::parse(id) } else { None }
}

/// The path that the function sees, of what a client asks this host.
pub fn path<'a>(host: &[u8], path: &'a str) -> &'a str {
    if by_host(host).is_some() {
        return path;
    }
    // What follows the function's name, or its id.
    let rest = path.strip_prefix("/fn/").or_else(|| path.strip_prefix("/_url/")).unwrap_or(path);
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// What holds for a URL: what was said over the API, or else what `function.toml` says; none: it is
/// as open as the rest of the server. A function that was made over the API has a URL only once
/// that was said there too, and so has an alias.
pub fn url_of(api: &Api, version: &Version, alias: Option<&str>) -> Result<Option<Url>, ApiError> {
    let catalog = api.host.catalog.borrow();
    let missing = || none(&api.host.facts.home.arn(&version.name, alias).to_string());
    let function = catalog.function(&version.name).ok_or_else(missing)?;
    if let Some(url) = function.url(alias).filter(|_| alias != Some(LATEST)) {
        return Ok(Some(url.clone()));
    }
    let has_toml = function.source != Source::Pushed || !function.controls.is_configured;
    if alias.is_some() || !has_toml {
        return Err(missing());
    }
    Ok(version.config.url.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "xj4bnp4pahh6uqkbidpf3lrceoyagynd";

    #[test]
    fn hosts_of_function_urls_are_known() {
        for known in [".lambda-url.us-east-1.on.aws", ".Lambda-URL.home.localhost:4620"] {
            assert_eq!(by_host(format!("{ID}{known}").as_bytes()), UrlId::parse(ID), "{known}");
        }
        for other in [
            "localhost:4620",
            "lambda-url.us-east-1.on.aws",
            "x.lambda-url.us-east-1.on.aws",
            &format!("{ID}.lambda-url"),
            &format!("{ID}.lambda-url."),
            &format!("{ID}.lambda.us-east-1.on.aws"),
            "",
        ] {
            assert_eq!(by_host(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn functions_see_the_path_behind_their_name() {
        for (asked, seen) in [
            ("/fn/demo/a/b", "/a/b"),
            ("/fn/demo", "/"),
            ("/fn/demo:live/", "/"),
            (&format!("/_url/{ID}/a//b"), "/a//b"),
            (&format!("/_url/{ID}"), "/"),
        ] {
            assert_eq!(path(b"localhost", asked), seen);
        }
        let host = format!("{ID}.lambda-url.us-east-1.on.aws");
        assert_eq!(path(host.as_bytes(), "/fn/demo/a"), "/fn/demo/a");
    }
}
