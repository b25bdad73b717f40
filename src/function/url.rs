//! Function URLs: who may call one, how it replies, and from which web pages it may be called; as
//! `[url]` of `function.toml` says it, or the control plane.

use std::fmt;

use sha2::{Digest, Sha256};

use super::record::UrlRecord;
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

/// How the function URL replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvokeMode {
    /// With whole replies, in payload format 2.0.
    Buffered,
    /// As the handler writes.
    ResponseStream,
}

/// A function URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Who may call it.
    pub auth: UrlAuth,
    /// What is told to browsers, if the server tells it and not the function.
    pub cors: Option<Cors>,
    /// How it replies.
    pub invoke_mode: InvokeMode,
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
    let invoke_mode = match section.choice("invoke_mode", &["buffered", "response_stream"]) {
        Some(1) => InvokeMode::ResponseStream,
        None | Some(_) => InvokeMode::Buffered,
    };
    Url { auth, cors: section.table("cors", cors), invoke_mode }
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

impl UrlAuth {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            UrlAuth::None => "NONE",
            UrlAuth::Iam => "AWS_IAM",
        }
    }
}

impl InvokeMode {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            InvokeMode::Buffered => "BUFFERED",
            InvokeMode::ResponseStream => "RESPONSE_STREAM",
        }
    }
}

impl From<&UrlRecord> for Url {
    fn from(record: &UrlRecord) -> Url {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let cors = record.cors.as_ref().map(|cors| {
            let list = |name: &str| {
                let items = cors.get(name).and_then(|list| list.as_array());
                items.into_iter().flatten().filter_map(text).collect()
            };
            let max_age = cors.get("MaxAge").and_then(|seconds| seconds.as_u64());
            Cors {
                allow_credentials: cors.get("AllowCredentials") == Some(&true.into()),
                allow_headers: list("AllowHeaders"),
                allow_methods: list("AllowMethods"),
                allow_origins: list("AllowOrigins"),
                expose_headers: list("ExposeHeaders"),
                max_age_s: max_age.and_then(|seconds| u32::try_from(seconds).ok()),
            }
        });
        // What is not known any more lets nobody in.
        let is_open = record.auth_type == UrlAuth::None.name();
        let streams = record.invoke_mode == InvokeMode::ResponseStream.name();
        Url {
            auth: if is_open { UrlAuth::None } else { UrlAuth::Iam },
            cors,
            invoke_mode: if streams { InvokeMode::ResponseStream } else { InvokeMode::Buffered },
        }
    }
}

impl Cors {
    /// As the API has it; what was not said is left out.
    pub fn to_value(&self) -> serde_json::Value {
        let mut value = serde_json::Map::new();
        if self.allow_credentials {
            value.insert("AllowCredentials".into(), true.into());
        }
        for (name, list) in [
            ("AllowHeaders", &self.allow_headers),
            ("AllowMethods", &self.allow_methods),
            ("AllowOrigins", &self.allow_origins),
            ("ExposeHeaders", &self.expose_headers),
        ] {
            if !list.is_empty() {
                value.insert(name.into(), list.clone().into());
            }
        }
        if let Some(seconds) = self.max_age_s {
            value.insert("MaxAge".into(), seconds.into());
        }
        value.into()
    }
}

/// Characters of a function URL's name.
pub const URL_ID: usize = 32;

/// What a function URL is called in its address: the same for the same ARN, on every server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlId([u8; URL_ID]);

impl UrlId {
    /// The name for the URL of this function, or alias. Five bits of the digest for each character.
    pub fn of(arn: impl fmt::Display) -> UrlId {
        let digest = Sha256::digest(arn.to_string().as_bytes());
        let mut id = [0; URL_ID];
        for (characters, bytes) in id.chunks_mut(8).zip(digest.chunks(5)) {
            let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            for (n, character) in characters.iter_mut().rev().enumerate() {
                let five = usize::try_from(bits >> (5 * n) & 31).expect("five bits");
                *character = b"abcdefghijklmnopqrstuvwxyz234567"[five];
            }
        }
        UrlId(id)
    }

    /// Understands a name, in any case.
    pub fn parse(text: &str) -> Option<UrlId> {
        let id: [u8; URL_ID] = text.as_bytes().try_into().ok()?;
        let known = |b: &u8| b.is_ascii_alphabetic() || (b'2'..=b'7').contains(b);
        id.iter().all(known).then(|| UrlId(id.map(|b| b.to_ascii_lowercase())))
    }
}

impl fmt::Display for UrlId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).expect("letters and digits"))
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
        let open = Url { auth: UrlAuth::None, cors: None, invoke_mode: InvokeMode::Buffered };
        assert_eq!(read("").expect("valid"), open);
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

    #[test]
    fn names_are_the_digest_in_base_32() {
        // sha256("abc") = ba7816bf 8f01cfea 414140de 5dae2223 b00361a3...
        let id = UrlId::of("abc");
        assert_eq!(id.to_string(), "xj4bnp4pahh6uqkbidpf3lrceoyagynd");
        assert_eq!(UrlId::parse("XJ4bnp4pahh6uqkbidpf3lrceoyagynd"), Some(id));
        for bad in ["", "xj4bnp4pahh6uqkbidpf3lrceoyagyn", "0j4bnp4pahh6uqkbidpf3lrceoyagynd"] {
            assert_eq!(UrlId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_api_said_is_understood() {
        let cors = Cors {
            allow_credentials: true,
            allow_methods: vec!["GET".into(), "*".into()],
            max_age_s: Some(5),
            ..Cors::default()
        };
        let record = |auth: &str, mode: &str| UrlRecord {
            auth_type: auth.into(),
            invoke_mode: mode.into(),
            cors: Some(cors.to_value()),
            created_ms: 0,
            modified_ms: 0,
        };
        for (auth, mode) in
            [(UrlAuth::None, InvokeMode::Buffered), (UrlAuth::Iam, InvokeMode::ResponseStream)]
        {
            let expected = Url { auth, cors: Some(cors.clone()), invoke_mode: mode };
            assert_eq!(Url::from(&record(auth.name(), mode.name())), expected);
        }
        assert_eq!(Url::from(&record("OTHER", "OTHER")).auth, UrlAuth::Iam, "nobody is let in");
        assert_eq!(Cors::default().to_value(), serde_json::json!({}));
    }
}
