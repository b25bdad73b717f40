//! Signatures as AWS SDKs make them, and some that they would not make.

#![allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A request to be signed; tests change what they are about.
#[derive(Clone)]
pub struct Request<'a> {
    pub id: &'a str,
    pub secret: &'a str,
    pub method: &'a str,
    /// As it is sent: encoded once, its query sorted.
    pub target: &'a str,
    pub body: &'a [u8],
    /// Further fields that are signed, sorted by their names in lower case.
    pub fields: &'a [(&'a str, &'a str)],
    /// Seconds of the clock's difference to ours.
    pub skew_s: i64,
    pub region: &'a str,
    pub service: &'a str,
}

impl<'a> Request<'a> {
    pub fn new(method: &'a str, target: &'a str, body: &'a [u8]) -> Request<'a> {
        Request {
            id: "AKIAADMIN",
            secret: "s3cret/+=",
            method,
            target,
            body,
            fields: &[],
            skew_s: 0,
            region: "us-east-1",
            service: "lambda",
        }
    }

    pub fn by(self, id: &'a str, secret: &'a str) -> Request<'a> {
        Request { id, secret, ..self }
    }

    /// The fields to send besides `Host: localhost`.
    pub fn signed(&self) -> Vec<(String, String)> {
        let date = date(self.skew_s);
        let day = &date[..8];
        let mut fields = vec![("host", "localhost"), ("x-amz-date", &date)];
        fields.extend(self.fields);
        fields.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        let lower = |name: &str| name.to_ascii_lowercase();
        let names: Vec<String> = fields.iter().map(|(name, _)| lower(name)).collect();
        let names = names.join(";");
        let lines: String =
            fields.iter().map(|(name, value)| format!("{}:{value}\n", lower(name))).collect();
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let path = path.replace('%', "%25");
        let content = fields.iter().find(|(name, _)| lower(name) == "x-amz-content-sha256");
        let payload = content.map_or_else(|| hash(self.body), |(_, value)| (*value).to_owned());
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{payload}", self.method);
        let Request { id, region, service, .. } = self;
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        let signature = hex(&mac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        let sent = fields.iter().filter(|(name, _)| *name != "host");
        let mut sent: Vec<_> =
            sent.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        sent.push(("Authorization".to_owned(), authorization));
        sent
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The time so many seconds from now, as signatures have it.
fn date(skew_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let ms = i64::try_from(now).unwrap() + skew_s * 1000;
    let iso = hob::io::clock::CivilTime::from_unix_ms(u64::try_from(ms).unwrap()).to_iso();
    format!("{}Z", iso[..19].replace(['-', ':'], ""))
}
