//! `[url]`: who may call a function's URL, and from which web pages.

use crate::config::Section;
use crate::limits::{CORS_LIST_MAX, CORS_METHODS_MAX};

/// Who may call the function URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlAuth {
    /// Everybody who reaches the port.
    None,
    /// Callers with a SigV4 signature.
    Iam,
}

/// A function URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Who may call it.
    pub auth: UrlAuth,
    /// What is told to browsers, if the server tells it and not the function.
    pub cors: Option<Cors>,
}

/// What browsers are told of a function URL that pages of other origins call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Cookies and the like may come along.
    pub allow_credentials: bool,
    /// Header fields that requests may have.
    pub allow_headers: Vec<String>,
    /// Methods that requests may have.
    pub allow_methods: Vec<String>,
    /// Pages that may call: `https://example.com`, or `*` for all.
    pub allow_origins: Vec<String>,
    /// Header fields of replies that pages may see.
    pub expose_headers: Vec<String>,
    /// How long a browser may keep this.
    pub max_age_s: Option<u32>,
}

/// Methods that can be allowed, as on Lambda.
pub const CORS_METHODS: [&str; 7] = ["GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*"];
/// Longest time that a browser may keep what it was told.
pub const CORS_MAX_AGE_S: u32 = 86_400;

/// True for the name of a header field, and for `*`.
pub fn is_cors_header(text: &str) -> bool {
    (1..=1024).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// True for an origin, and for `*`.
pub fn is_cors_origin(text: &str) -> bool {
    let visible = |b: u8| b.is_ascii_graphic() && b != b',';
    text == "*"
        || ((1..=253).contains(&text.len())
            && text.bytes().all(visible)
            && text
                .split_once("://")
                .is_some_and(|(_, host)| !host.is_empty() && !host.contains('/')))
}

/// Reads the section.
pub fn read(section: &Section<'_>) -> Url {
    let auth = match section.choice("auth", &["none", "iam"]) {
        Some(1) => UrlAuth::Iam,
        None | Some(_) => UrlAuth::None,
    };
    Url { auth, cors: section.table("cors", cors) }
}

fn cors(section: &Section<'_>) -> Cors {
    let list = |key, most, allowed: &str, check: fn(&str) -> bool| {
        let list = section.texts(key, allowed, check).unwrap_or_default();
        if list.len() > most {
            section.refuse(key, format_args!("{} of them, allowed: up to {most}", list.len()));
        }
        list
    };
    let names = "names of header fields, or *";
    let is_method = |text: &str| CORS_METHODS.contains(&text);
    let methods = CORS_METHODS.join(", ");
    Cors {
        allow_credentials: section.boolean("allow_credentials").unwrap_or(false),
        allow_headers: list("allow_headers", CORS_LIST_MAX, names, is_cors_header),
        allow_methods: list("allow_methods", CORS_METHODS_MAX, &methods, is_method),
        allow_origins: list(
            "allow_origins",
            CORS_LIST_MAX,
            "origins like https://example.com, or *",
            is_cors_origin,
        ),
        expose_headers: list("expose_headers", CORS_LIST_MAX, names, is_cors_header),
        max_age_s: section.integer("max_age", 0..=i64::from(CORS_MAX_AGE_S)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn what_browsers_are_told_is_checked() {
        let read = |text: &str| Source::new("f", text).read(read);
        let text = "auth = \"iam\"\ncors = { allow_credentials = true, allow_headers = [\"X-A\", \"*\"], \
                    allow_methods = [\"GET\", \"*\"], allow_origins = [\"https://a.example:8443\"], \
                    expose_headers = [\"date\"], max_age = 86400 }";
        let url = read(text).expect("valid");
        let cors = url.cors.expect("there");
        assert_eq!((url.auth, cors.allow_credentials), (UrlAuth::Iam, true));
        assert_eq!((cors.allow_headers.len(), cors.max_age_s), (2, Some(86_400)));
        assert_eq!(read("").expect("valid"), Url { auth: UrlAuth::None, cors: None });
        assert_eq!(read("[cors]").expect("valid").cors, Some(Cors::default()));
        let many = |item: &str, count: usize| format!("[{}]", format!("\"{item}\",").repeat(count));
        for line in [
            "allow_origins = [\"example.com\"]",
            "allow_origins = [\"https://a.example/path\"]",
            "allow_origins = [\"https://a b\"]",
            "allow_headers = [\"a b\"]",
            "expose_headers = [\"a\\r\\nb\"]",
            "allow_methods = [\"OPTIONS\"]",
            "max_age = 86401",
            "max_age = -1",
            "allow_credentials = 1",
            "allow_credential = true",
            &format!("allow_headers = {}", many("a", 101)),
            &format!("allow_methods = {}", many("GET", 7)),
        ] {
            let issues = read(&format!("[cors]\n{line}")).expect_err(line);
            assert_eq!(issues.len(), 1, "{line}: {issues:?}");
            assert!(issues[0].to_string().starts_with("f:2: cors."), "{issues:?}");
        }
    }
}
