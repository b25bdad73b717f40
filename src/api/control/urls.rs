//! Function URLs: one for a function, and one for each of its aliases.

use serde_json::{Value, json};

use super::change::{self, apply, now_ms};
use super::concurrency::no_folder_says;
use super::fields::{Fields, unfit};
use super::list::page;
use super::{Answer, Named, Request, view};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::record::{FunctionRecord, LATEST, UrlRecord, is_alias};
use crate::function::url::{
    CORS_MAX_AGE_S, CORS_METHODS, Cors, UrlId, is_cors_header, is_cors_origin,
};
use crate::io::clock::CivilTime;
use crate::limits::{CORS_LIST_MAX, CORS_METHODS_MAX, LIST_PAGE_MAX, URL_LENGTH_MAX};

/// What `function.toml` calls them.
const KEY: &str = "[url]";

/// `CreateFunctionUrlConfig`
pub fn create(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = function(request)?;
    let fields = request.fields()?;
    let given = Given::read(&fields)?;
    let auth_type = given.auth_type.ok_or_else(|| fields.missing("AuthType"))?;
    let mut record = known(api, &named)?;
    check_folder(api, &named)?;
    if find(api, &named, &record)?.is_some() {
        let arn = arn(api, &named);
        return Err(ApiError::conflict(format!(
            "Failed to create function url config for [functionArn = {arn}]. Error message:  \
             FunctionUrlConfig exists for this Lambda function"
        )));
    }
    let now = now_ms();
    let url = UrlRecord {
        auth_type,
        invoke_mode: given.invoke_mode.unwrap_or_else(|| "BUFFERED".to_owned()),
        cors: given.cors.flatten(),
        created_ms: now,
        modified_ms: now,
    };
    let mut shown = show(request, &named, &url);
    // It was not modified yet.
    shown.as_object_mut().and_then(|shown| shown.remove("LastModifiedTime"));
    record.urls.insert(key(&named).to_owned(), url);
    Ok(Answer::new(201, shown).once(apply(api, &named.name, &record)?))
}

/// `GetFunctionUrlConfig`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let named = function(request)?;
    let record = known(request.api, &named)?;
    let url = find(request.api, &named, &record)?.ok_or_else(none)?;
    Ok(Answer::new(200, show(request, &named, &url)))
}

/// `UpdateFunctionUrlConfig`
pub fn update(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = function(request)?;
    let fields = request.fields()?;
    let given = Given::read(&fields)?;
    let mut record = known(api, &named)?;
    check_folder(api, &named)?;
    let before = find(api, &named, &record)?.ok_or_else(none)?;
    let url = UrlRecord {
        auth_type: given.auth_type.unwrap_or(before.auth_type),
        invoke_mode: given.invoke_mode.unwrap_or(before.invoke_mode),
        cors: given.cors.unwrap_or(before.cors),
        created_ms: before.created_ms,
        modified_ms: now_ms(),
    };
    let shown = show(request, &named, &url);
    record.urls.insert(key(&named).to_owned(), url);
    Ok(Answer::new(200, shown).once(apply(api, &named.name, &record)?))
}

/// `DeleteFunctionUrlConfig`
pub fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = function(request)?;
    let mut record = known(api, &named)?;
    check_folder(api, &named)?;
    record.urls.remove(key(&named)).ok_or_else(none)?;
    Ok(Answer::empty().once(apply(api, &named.name, &record)?))
}

/// `ListFunctionUrlConfigs`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = Named { name: request.bare_function()?, qualifier: None };
    let mut record = known(api, &named)?;
    if let Some(own) = find(api, &named, &record)? {
        record.urls.insert(LATEST.to_owned(), own);
    }
    let items = record.urls.iter().map(|(of, url)| (of.clone(), (of, url)));
    let page = page(request, items, LIST_PAGE_MAX)?;
    let page = page.map(|(of, url)| {
        let qualifier = Some(of.clone()).filter(|of| of != LATEST);
        show(request, &Named { name: named.name.clone(), qualifier }, url)
    });
    Ok(Answer::new(200, page.into_value("FunctionUrlConfigs")))
}

/// The function or alias of the request. Versions have no URL.
fn function(request: &Request<'_>) -> Result<Named, ApiError> {
    let named = request.function()?;
    match named.qualifier.as_deref().filter(|qualifier| !is_alias(qualifier)) {
        None => Ok(named),
        Some(version) => {
            let pattern = r"((?!^\d+$)^[0-9a-zA-Z-_]+$)";
            let demand = format_args!("satisfy regular expression pattern: {pattern}");
            Err(unfit("qualifier", version, demand))
        }
    }
}

/// What is kept of a function that has the alias which is named.
fn known(api: &Api, named: &Named) -> Result<FunctionRecord, ApiError> {
    let missing = || ApiError::not_found("Function does not exist");
    let record = change::read(api, &named.name).map_err(|_| missing())?;
    match &named.qualifier {
        Some(alias) if !record.aliases.contains_key(alias) => Err(missing()),
        Some(_) | None => Ok(record),
    }
}

fn none() -> ApiError {
    ApiError::not_found("The resource you requested does not exist.")
}

/// A folder's own URL is its `function.toml`'s affair; those of its aliases cannot be said there.
fn check_folder(api: &Api, named: &Named) -> Result<(), ApiError> {
    match named.qualifier {
        None => no_folder_says(api, &named.name, KEY),
        Some(_) => Ok(()),
    }
}

fn key(named: &Named) -> &str {
    named.qualifier.as_deref().unwrap_or(LATEST)
}

fn arn(api: &Api, named: &Named) -> String {
    api.host.facts.home.arn(&named.name, named.qualifier.as_deref()).to_string()
}

/// The configuration that is in force: what the API has been told, or what `function.toml` says.
fn find(api: &Api, named: &Named, record: &FunctionRecord) -> Result<Option<UrlRecord>, ApiError> {
    if let Some(url) = record.urls.get(key(named)) {
        return Ok(Some(url.clone()));
    }
    let said = {
        let catalog = api.host.catalog.borrow();
        let function = catalog.function(&named.name).filter(|_| named.qualifier.is_none());
        let version = function.and_then(|function| function.state.as_ref().ok());
        version.and_then(|version| version.config.url.clone())
    };
    let Some(said) = said else { return Ok(None) };
    let modified_ms = view::latest(api, &named.name, record)?.modified_ms;
    Ok(Some(UrlRecord {
        auth_type: said.auth.name().to_owned(),
        invoke_mode: said.invoke_mode.name().to_owned(),
        cors: said.cors.map(|cors| cors.to_value()),
        created_ms: modified_ms,
        modified_ms,
    }))
}

/// What a request says.
#[derive(Debug)]
struct Given {
    auth_type: Option<String>,
    invoke_mode: Option<String>,
    /// None inside: what was there goes.
    cors: Option<Option<Value>>,
}

impl Given {
    fn read(fields: &Fields) -> Result<Given, ApiError> {
        let own = |text: &str| text.to_owned();
        let cors = fields.object("Cors")?.map(|fields| cors(&fields)).transpose()?;
        Ok(Given {
            auth_type: fields.choice("AuthType", &["NONE", "AWS_IAM"])?.map(own),
            invoke_mode: fields.choice("InvokeMode", &["BUFFERED", "RESPONSE_STREAM"])?.map(own),
            cors: cors.map(|cors| (cors != Cors::default()).then(|| cors.to_value())),
        })
    }
}

fn cors(fields: &Fields) -> Result<Cors, ApiError> {
    let list = |name: &str, most: usize, check: fn(&str) -> bool, allowed: &str| {
        let Some(items) = fields.texts(name)? else { return Ok(Vec::new()) };
        let shown = || format!("[{}]", items.join(", "));
        if items.len() > most {
            let demand = format_args!("have length less than or equal to {most}");
            return Err(fields.unfit(name, shown(), demand));
        }
        if !items.iter().all(|item| check(item)) {
            let demand = format_args!("satisfy constraint: [Member must {allowed}]");
            return Err(fields.unfit(name, shown(), demand));
        }
        Ok(items)
    };
    let is_method = |text: &str| CORS_METHODS.contains(&text);
    let methods = format!("satisfy enum value set: [{}]", CORS_METHODS.join(", "));
    let header = "be the name of a header field, or *";
    let origin = "be an origin like https://example.com, or *";
    Ok(Cors {
        allow_credentials: fields.boolean("AllowCredentials")?.unwrap_or(false),
        allow_headers: list("AllowHeaders", CORS_LIST_MAX, is_cors_header, header)?,
        allow_methods: list("AllowMethods", CORS_METHODS_MAX, is_method, &methods)?,
        allow_origins: list("AllowOrigins", CORS_LIST_MAX, is_cors_origin, origin)?,
        expose_headers: list("ExposeHeaders", CORS_LIST_MAX, is_cors_header, header)?,
        max_age_s: fields.integer("MaxAge", 0..=CORS_MAX_AGE_S)?,
    })
}

fn show(request: &Request<'_>, named: &Named, url: &UrlRecord) -> Value {
    let arn = arn(request.api, named);
    let time = |ms| CivilTime::from_unix_ms(ms).to_iso();
    let mut value = json!({
        "FunctionUrl": address(&[&request.url(), &request.api.host.facts.endpoint], &arn),
        "FunctionArn": arn,
        "AuthType": url.auth_type,
        "InvokeMode": url.invoke_mode,
        "CreationTime": time(url.created_ms),
        "LastModifiedTime": time(url.modified_ms),
    });
    if let Some(cors) = &url.cors {
        value["Cors"] = cors.clone();
    }
    value
}

/// Where the URL of this function or alias is: at the first of these servers whose name is not too
/// long for what clients expect, or else at the last.
fn address(servers: &[&str], arn: &str) -> String {
    let mut addresses = servers.iter().map(|server| format!("{server}/_url/{}/", UrlId::of(arn)));
    let first = addresses.next().unwrap_or_default();
    if first.len() <= URL_LENGTH_MAX { first } else { addresses.next_back().unwrap_or(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Given, ApiError> {
        Given::read(&Fields::parse(text.as_bytes()).expect("JSON"))
    }

    #[test]
    fn what_browsers_are_told_is_checked_and_kept_as_it_was_said() {
        let cors = r#"{"AllowCredentials":true,"AllowHeaders":["X-A","*"],"AllowMethods":["GET"],
            "AllowOrigins":["https://a.example:8443"],"ExposeHeaders":["date"],"MaxAge":86400}"#;
        let said = given(&format!("{{\"AuthType\":\"NONE\",\"Cors\":{cors}}}")).expect("valid");
        let kept = said.cors.flatten().expect("there");
        assert_eq!(kept, serde_json::from_str::<Value>(cors).expect("JSON"));
        assert_eq!(given("{}").expect("valid").cors, None);
        assert_eq!(given(r#"{"Cors":{}}"#).expect("valid").cors, Some(None), "it goes");
        let many =
            |item: &str, count: usize| format!("[{}\"a\"]", format!("\"{item}\",").repeat(count));
        for (cors, part) in [
            (r#"{"MaxAge":86401}"#, "'cors.maxAge' failed to satisfy constraint: Member must have"),
            (r#"{"MaxAge":-1}"#, "greater than or equal to 0"),
            (r#"{"AllowMethods":["OPTIONS"]}"#, "'[OPTIONS]' at 'cors.allowMethods' failed"),
            (r#"{"AllowMethods":["get"]}"#, "enum value set: [GET, PUT"),
            (r#"{"AllowOrigins":["example.com"]}"#, "'cors.allowOrigins' failed"),
            (r#"{"AllowHeaders":["a b"]}"#, "'cors.allowHeaders' failed"),
            (r#"{"ExposeHeaders":["a\r\nb"]}"#, "'cors.exposeHeaders' failed"),
            (&format!("{{\"AllowHeaders\":{}}}", many("a", 100)), "less than or equal to 100"),
            (&format!("{{\"AllowMethods\":{}}}", many("GET", 6)), "less than or equal to 6"),
        ] {
            let refused = given(&format!("{{\"Cors\":{cors}}}")).expect_err(cors);
            assert!(refused.message.contains(part), "{}", refused.message);
        }
        assert!(given(r#"{"AuthType":"OPEN"}"#).is_err() && given(r#"{"InvokeMode":""}"#).is_err());
    }

    #[test]
    fn addresses_are_as_long_as_clients_want_them() {
        let long = format!("http://{}", "x".repeat(60));
        let (short, arn) = ("http://a", "arn:aws:lambda:us-east-1:000000000000:function:f");
        for (servers, expected) in [
            (&[short, &long][..], short),
            (&[&long, short], short),
            (&["http://127.0.0.1:4620", short], "http://127.0.0.1:4620"),
        ] {
            let address = address(servers, arn);
            assert_eq!(address, format!("{expected}/_url/{}/", UrlId::of(arn)));
            assert!((40..=URL_LENGTH_MAX).contains(&address.len()), "{address}");
        }
    }
}
