//! AWS Signature Version 4, as clients of the service `lambda` sign their requests.
//!
//! Pure: bytes in, a verdict out. A signature covers the body, which comes after the head; so what
//! can be told from the head is told at once, and [`Signed`] waits for the rest.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::api::error::ApiError;
use crate::api::route;
use crate::http::head::values;
use crate::http::{BodyKind, Head};
use crate::io::clock::CivilTime;
use crate::limits::{CLOCK_SET_S, SIGNATURE_SKEW_S, SIGNED_FIELDS_MAX};

/// What the value of `Authorization` starts with.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

const MISMATCH: &str = "The request signature we calculated does not match the signature you \
                        provided. Check your AWS Secret Access Key and signing method. Consult the \
                        service documentation for details.";

fn incomplete(message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::incomplete_signature(message)
}

fn invalid(message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::forbidden("InvalidSignatureException", message)
}

/// What a request says about its signature.
#[derive(Debug)]
pub struct Signature<'a> {
    /// The id of the key.
    pub id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    terminator: &'a str,
    /// Names of the signed header fields, with `;` between them.
    names: &'a str,
    /// When it was signed, as `X-Amz-Date` has it ...
    date: &'a str,
    /// ... and in seconds of Unix time.
    signed_s: u64,
    /// What `X-Amz-Content-Sha256` says.
    content: Option<&'a str>,
    signature: [u8; 32],
}

/// The value of a field that a request may have once at most.
pub fn single<'a>(header: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ApiError> {
    let mut values = values(header, name);
    let first = values.next();
    if values.next().is_some() {
        return Err(incomplete(format!("The request has more than one '{name}' header field.")));
    }
    Ok(first)
}

fn text(value: &[u8]) -> Result<&str, ApiError> {
    let printable = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
    printable.ok_or_else(|| incomplete("Header fields of a signature must be ASCII."))
}

impl<'a> Signature<'a> {
    /// Reads `authorization`, which starts with the algorithm, and the fields that belong to it.
    pub fn read(header: &'a [u8], authorization: &'a [u8]) -> Result<Signature<'a>, ApiError> {
        let parameters = text(authorization)?.strip_prefix(ALGORITHM).unwrap_or_default();
        let (mut credential, mut names, mut signature) = (None, None, None);
        for pair in parameters.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                incomplete(
                    "not a valid key=value pair (missing equal-sign) in Authorization header",
                )
            })?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut names,
                "Signature" => &mut signature,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(incomplete(format!(
                    "Authorization header has two '{name}' parameters."
                )));
            }
        }
        let date = single(header, "x-amz-date")?.map(text).transpose()?;
        let (Some(credential), Some(names), Some(signature), Some(date)) =
            (credential, names, signature, date)
        else {
            return Err(missing(credential, names, signature, date));
        };
        let mut parts = credential.splitn(5, '/');
        let mut part = || {
            let malformed = "Credential must have exactly 5 slash-delimited elements, e.g. \
                             keyid/date/region/service/term";
            parts.next().filter(|part| !part.is_empty()).ok_or_else(|| incomplete(malformed))
        };
        Ok(Signature {
            id: part()?,
            day: part()?,
            region: part()?,
            service: part()?,
            terminator: part()?,
            names,
            date,
            signed_s: unix_s(date).ok_or_else(|| {
                incomplete(format!(
                    "Date must be in ISO-8601 'basic format'. Got '{date}'. See \
                     http://en.wikipedia.org/wiki/ISO_8601"
                ))
            })?,
            content: single(header, "x-amz-content-sha256")?.map(text).transpose()?,
            signature: digest(signature).ok_or_else(|| invalid(MISMATCH))?,
        })
    }

    /// Checks what the credential is for, and when it was signed. A clock that was not set yet,
    /// as on a board without a battery, is no measure: `now_s` counts once it is plausible.
    pub fn check_scope(&self, region: &str, now_s: u64) -> Result<(), ApiError> {
        if self.terminator != "aws4_request" {
            let other = self.terminator;
            return Err(invalid(format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{other}'."
            )));
        }
        if self.service != "lambda" {
            return Err(invalid("Credential should be scoped to correct service: 'lambda'."));
        }
        if self.region != region {
            let other = self.region;
            return Err(invalid(format!(
                "Credential should be scoped to a valid region, not '{other}': this is '{region}'."
            )));
        }
        let (day, date) = (self.day, self.date);
        if !date.starts_with(day) || day.len() != 8 {
            return Err(invalid(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{day}' != '{}', from '{date}'.",
                &date[..8]
            )));
        }
        if now_s < CLOCK_SET_S {
            return Ok(());
        }
        let (earliest, latest) = (now_s - SIGNATURE_SKEW_S, now_s + SIGNATURE_SKEW_S);
        let minutes = SIGNATURE_SKEW_S / 60;
        if self.signed_s < earliest {
            return Err(invalid(format!(
                "Signature expired: {date} is now earlier than {} ({} - {minutes} min.)",
                basic(earliest),
                basic(now_s)
            )));
        }
        if self.signed_s > latest {
            return Err(invalid(format!(
                "Signature not yet current: {date} is still later than {} ({} + {minutes} min.)",
                basic(latest),
                basic(now_s)
            )));
        }
        Ok(())
    }

    /// Checks the signature as far as the head alone allows. What is left is for the body to show;
    /// `None`: nothing is, since there is none.
    pub fn verify(
        &self,
        secret: &str,
        header: &[u8],
        head: &Head,
    ) -> Result<Option<Signed>, ApiError> {
        let request = self.request(header, head).ok_or_else(|| invalid(MISMATCH))?;
        let Signature { date, day, region, service, .. } = self;
        let secret = format!("AWS4{secret}");
        let key = [*day, region, service, "aws4_request"]
            .iter()
            .fold(Cow::Borrowed(secret.as_bytes()), |key, part| {
                Cow::Owned(mac(&key, part.as_bytes()).finalize().into_bytes().to_vec())
            });
        let heading = format!("{ALGORITHM}\n{date}\n{day}/{region}/{service}/aws4_request\n");
        let unfinished =
            Unfinished { request, mac: mac(&key, heading.as_bytes()), signature: self.signature };
        let proof = match (self.content, head.body) {
            (Some(content), _) => {
                let expected = digest(content).ok_or_else(|| not_hashed(content))?;
                unfinished.finish(&expected)?;
                Proof::Content(expected)
            }
            (None, BodyKind::Length(0)) => {
                unfinished.finish(&Sha256::digest(b"").into())?;
                return Ok(None);
            }
            (None, BodyKind::Length(_) | BodyKind::Chunked) => Proof::Signature(unfinished),
        };
        Ok(Some(Signed { proof, body: Sha256::new() }))
    }

    /// The canonical request up to the hash of the payload; `None` if that cannot be what the
    /// client signed.
    fn request(&self, header: &[u8], head: &Head) -> Option<Sha256> {
        let target = route::origin(std::str::from_utf8(&header[head.target.clone()]).ok()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut text = format!("{}\n", head.method.as_str()).into_bytes();
        add_path(&mut text, path);
        text.push(b'\n');
        add_query(&mut text, query);
        text.push(b'\n');
        let mut has_host = false;
        for (n, name) in self.names.split(';').enumerate() {
            if n == SIGNED_FIELDS_MAX {
                return None;
            }
            has_host |= name.eq_ignore_ascii_case("host");
            text.extend_from_slice(name.as_bytes());
            let mut separator = b':';
            for value in values(header, name) {
                text.push(separator);
                add_value(&mut text, value);
                separator = b',';
            }
            if separator == b':' {
                return None;
            }
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(self.names.as_bytes());
        text.push(b'\n');
        has_host.then(|| Sha256::new().chain_update(&text))
    }
}

/// A signature that is right as far as the head goes.
pub struct Signed {
    proof: Proof,
    /// The body so far.
    body: Sha256,
}

#[allow(clippy::large_enum_variant, reason = "it is on the heap, as long as its request is read")]
enum Proof {
    /// It is right if the body has this digest, which the client signed.
    Content([u8; 32]),
    /// The body's digest is a part of what was signed.
    Signature(Unfinished),
}

struct Unfinished {
    request: Sha256,
    mac: Hmac<Sha256>,
    signature: [u8; 32],
}

impl Unfinished {
    fn finish(mut self, body: &[u8; 32]) -> Result<(), ApiError> {
        self.request.update(hex(body));
        self.mac.update(&hex(&self.request.finalize().into()));
        // In constant time.
        self.mac.verify_slice(&self.signature).map_err(|_| invalid(MISMATCH))
    }
}

impl Signed {
    /// A further piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        self.body.update(piece);
    }

    /// The body has ended.
    pub fn finish(self) -> Result<(), ApiError> {
        let body: [u8; 32] = self.body.finalize().into();
        match self.proof {
            Proof::Content(expected) if expected == body => Ok(()),
            Proof::Content(_) => Err(invalid(
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )),
            Proof::Signature(unfinished) => unfinished.finish(&body),
        }
    }
}

fn missing(
    credential: Option<&str>,
    names: Option<&str>,
    signature: Option<&str>,
    date: Option<&str>,
) -> ApiError {
    let mut message = String::new();
    for (name, value) in
        [("Credential", credential), ("Signature", signature), ("SignedHeaders", names)]
    {
        if value.is_none() {
            message += &format!("Authorization header requires '{name}' parameter. ");
        }
    }
    if date.is_none() {
        message += "Authorization header requires existence of an 'X-Amz-Date' header. ";
    }
    incomplete(message.trim_end().to_owned())
}

/// The client does not say what its body is.
fn not_hashed(content: &str) -> ApiError {
    let why = if content == "UNSIGNED-PAYLOAD" { "needs TLS" } else { "is not supported" };
    invalid(format!("x-amz-content-sha256 '{content}' {why}: sign the body's SHA-256."))
}

fn mac(key: &[u8], bytes: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::new_from_slice(key).expect("keys of any length are taken");
    Mac::chain_update(mac, bytes)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// The digest that 64 hexadecimal digits stand for.
pub fn digest(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

/// `20261123T042258Z`
fn basic(unix_s: u64) -> String {
    let CivilTime { year, month, day, hour, minute, second, .. } =
        CivilTime::from_unix_ms(unix_s * 1000);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The reverse; `None` for what is no such time.
fn unix_s(text: &str) -> Option<u64> {
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<u64>().ok();
    let time = CivilTime {
        year: number(0..4)?,
        month: number(4..6)?,
        day: number(6..8)?,
        hour: number(9..11)?,
        minute: number(11..13)?,
        second: number(13..15)?,
        milli: 0,
    };
    time.to_unix_s().filter(|seconds| basic(*seconds) == text)
}

fn add_encoded(text: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(byte);
        } else {
            let upper = |digit: u8| HEX[usize::from(digit)].to_ascii_uppercase();
            text.extend_from_slice(&[b'%', upper(byte >> 4), upper(byte & 15)]);
        }
    }
}

/// The path as it was sent, each segment encoded once more, without empty and relative ones.
fn add_path(text: &mut Vec<u8>, path: &str) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        text.push(b'/');
        add_encoded(text, segment.bytes());
    }
    if segments.is_empty() || path.ends_with('/') {
        text.push(b'/');
    }
}

/// The query's parameters, sorted. What is encoded is encoded once, and in one way.
fn add_query(text: &mut Vec<u8>, query: &str) {
    let encoded = |part: &str| {
        let mut text = Vec::with_capacity(part.len());
        add_encoded(&mut text, decoded(part.as_bytes()));
        text
    };
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|_| !query.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encoded(name), encoded(value))
        })
        .collect();
    pairs.sort_unstable();
    for (n, (name, value)) in pairs.iter().enumerate() {
        if n > 0 {
            text.push(b'&');
        }
        text.extend_from_slice(name);
        text.push(b'=');
        text.extend_from_slice(value);
    }
}

/// Undoes percent-encoding; what is malformed stays as it is.
fn decoded(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        if let [b'%', high, low, more @ ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = more;
            return Some(high << 4 | low);
        }
        let (first, more) = rest.split_first()?;
        rest = more;
        Some(*first)
    })
}

/// A field's value, with one blank in place of many.
fn add_value(text: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        if *byte != b' ' || text.last() != Some(&b' ') {
            text.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests;
