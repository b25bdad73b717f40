//! The recorded requests of real clients, whole and tampered with.

use std::path::Path;

use super::*;
use crate::http::head;

/// The requests that a client sent on its connections, as heads and bodies.
fn recorded(client: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/signed").join(client);
    let mut requests = Vec::new();
    for entry in std::fs::read_dir(folder).expect("recorded").flatten() {
        let bytes = std::fs::read(entry.path()).expect("a recording");
        let mut rest = &bytes[..];
        while let Some(end) = head::end(rest, 0) {
            let (header, more) = rest.split_at(end);
            let BodyKind::Length(length) = head::parse(header).expect("a head").body else {
                panic!("these clients count their bodies");
            };
            let (body, more) = more.split_at(usize::try_from(length).expect("short"));
            requests.push((header.to_vec(), body.to_vec()));
            rest = more;
        }
    }
    requests
}

/// What is said of a request that is signed with `secret`, at the time at which it was signed.
fn verify(header: &[u8], body: &[u8], secret: &str) -> Result<String, ApiError> {
    let head = head::parse(header).expect("a head");
    let authorization = single(header, "authorization")?.expect("it is signed");
    let signature = Signature::read(header, authorization)?;
    signature.check_scope("us-east-1", signature.signed_s)?;
    if let Some(mut signed) = signature.verify(secret, header, &head)? {
        for piece in body.chunks(3) {
            signed.update(piece);
        }
        signed.finish()?;
    }
    Ok(signature.id.to_owned())
}

fn is_signed(header: &[u8]) -> bool {
    head::field(header, "authorization").is_some()
}

#[test]
fn what_real_clients_signed_is_right() {
    let mut count = 0;
    for client in ["aws", "boto"] {
        for (header, body) in recorded(client) {
            if is_signed(&header) {
                let line = String::from_utf8_lossy(&header).lines().next().map(str::to_owned);
                assert_eq!(verify(&header, &body, "secret"), Ok("AKIDEXAMPLE".into()), "{line:?}");
                let wrong = verify(&header, &body, "Secret").expect_err("another secret");
                assert_eq!((wrong.status, wrong.name), (403, "InvalidSignatureException"));
                count += 1;
            }
        }
    }
    assert_eq!(count, 21);
}

/// One recorded request with a body, with one text in place of another.
fn changed(from: &str, to: &str, body: &str) -> Result<String, ApiError> {
    let (header, _) =
        recorded("aws").into_iter().find(|(_, body)| body == b"{\"a\":1}").expect("one");
    let text = String::from_utf8(header).expect("text");
    assert!(text.contains(from), "{from}");
    verify(text.replacen(from, to, 1).as_bytes(), body.as_bytes(), "secret")
}

#[test]
fn what_was_signed_cannot_be_changed() {
    let body = "{\"a\":1}";
    assert!(changed("POST", "POST", body).is_ok());
    assert!(changed("User-Agent: ", "User-Agent: another ", body).is_ok(), "it is not signed");
    for (from, to, body) in [
        ("", "", "{\"a\":2}"),
        ("", "", ""),
        ("POST", "PUT", body),
        ("demo/inv", "demO/inv", body),
        ("invocations", "invocations?Qualifier=1", body),
        ("18091", "18092", body),
        ("X-Amz-Date: 20261123T", "X-Amz-Date: 20261123T000001Z\r\nX: ", body),
        ("us-east-1/lambda", "us-east-1/lambda/", body),
        ("host;", "", body),
        ("SignedHeaders=host", "SignedHeaders=host;nothing", body),
        ("Signature=", "Signature=0", body),
        ("Signature=", "Signature=\u{40}", body),
        ("X-Amz-Date:", "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nX-Amz-Date:", body),
        ("X-Amz-Date:", "X-Amz-Content-Sha256: STREAMING\r\nX-Amz-Date:", body),
    ] {
        let error = changed(from, to, body).expect_err(to);
        assert_eq!((error.status, error.name), (403, "InvalidSignatureException"), "{to}");
    }
}

#[test]
fn what_is_no_signature_is_told_in_the_words_of_aws() {
    for (from, to, message) in [
        ("Signature=", "Sig=", "Authorization header requires 'Signature' parameter."),
        (
            "X-Amz-Date",
            "X-Date",
            "Authorization header requires existence of an 'X-Amz-Date' header.",
        ),
        (
            "Credential=",
            "Credential=AKID,X=",
            "Credential must have exactly 5 slash-delimited elem",
        ),
        (
            "SignedHeaders=",
            "SignedHeaders",
            "not a valid key=value pair (missing equal-sign) in Auth",
        ),
        ("Signature=", "Signature=1, Signature=", "Authorization header has two 'Signature' para"),
        (
            "X-Amz-Date: 2026",
            "X-Amz-Date: 2O26",
            "Date must be in ISO-8601 'basic format'. Got '2O2",
        ),
        (
            "X-Amz-Date: 202611",
            "X-Amz-Date: 202602T",
            "Date must be in ISO-8601 'basic format'. Got",
        ),
        ("Credential=", "Credential=\u{e9}", "Header fields of a signature must be ASCII."),
        (
            "X-Amz-Date:",
            "X-Amz-Date: 20261123T000001Z\r\nX-Amz-Date:",
            "The request has more than one 'x-amz-date' header field.",
        ),
        (
            "Authorization:",
            "Authorization: Bearer x\r\nAuthorization:",
            "The request has more than one 'authorization' header field.",
        ),
    ] {
        let error = changed(from, to, "{\"a\":1}").expect_err(message);
        assert_eq!((error.status, error.name), (400, "IncompleteSignatureException"), "{to}");
        assert!(error.message.starts_with(message), "{}", error.message);
    }
    let long = format!("SignedHeaders={}host", "x;".repeat(20_000));
    assert!(changed("SignedHeaders=host", &long, "{\"a\":1}").is_err());
}

#[test]
fn scopes_and_times_are_checked_once_the_clock_is_set() {
    let header = |credential: &str, date: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Amz-Date: {date}\r\nAuthorization: {ALGORITHM} \
             Credential={credential},SignedHeaders=host,Signature={}\r\n\r\n",
            "0".repeat(64)
        )
    };
    let check = |credential: &str, date: &str, now_s: u64| {
        let header = header(credential, date);
        let authorization = head::field(header.as_bytes(), "authorization").expect("there");
        let signature = Signature::read(header.as_bytes(), authorization).expect("complete");
        signature.check_scope("us-east-1", now_s).err().map(|error| error.message.clone())
    };
    let good = "A/20261123/us-east-1/lambda/aws4_request";
    let date = "20261123T042258Z";
    let then = unix_s(date).expect("a date");
    for now in [then, then - 300, then + 300, 0, 86_400, CLOCK_SET_S - 1] {
        assert_eq!(check(good, date, now), None, "{now}");
    }
    for (credential, now, message) in [
        (
            good,
            then + 301,
            "Signature expired: 20261123T042258Z is now earlier than 20261123T042259Z \
             (20261123T042759Z - 5 min.)",
        ),
        (
            good,
            then - 301,
            "Signature not yet current: 20261123T042258Z is still later than 20261123T042257Z \
             (20261123T041757Z + 5 min.)",
        ),
        (
            "A/20261123/eu-west-1/lambda/aws4_request",
            then,
            "Credential should be scoped to a valid region, not 'eu-west-1': this is 'us-east-1'.",
        ),
        (
            "A/20261123/us-east-1/s3/aws4_request",
            then,
            "Credential should be scoped to correct service: 'lambda'.",
        ),
        (
            "A/20261123/us-east-1/lambda/aws5_request",
            then,
            "Credential should be scoped with a valid terminator: 'aws4_request', not \
             'aws5_request'.",
        ),
        (
            "A/20261124/us-east-1/lambda/aws4_request",
            then,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '20261124' != '20261123', from '20261123T042258Z'.",
        ),
    ] {
        assert_eq!(check(credential, date, now).as_deref(), Some(message));
    }
}

#[test]
fn paths_and_queries_are_written_in_one_way() {
    let written = |add: fn(&mut Vec<u8>, &str), text: &str| {
        let mut bytes = Vec::new();
        add(&mut bytes, text);
        String::from_utf8(bytes).expect("ASCII")
    };
    for (path, canonical) in [
        ("", "/"),
        ("/", "/"),
        ("/a%3Ab/c d~", "/a%253Ab/c%20d~"),
        ("//a/./b/../c//", "/a/c/"),
        ("/../..", "/"),
        ("/é", "/%C3%A9"),
    ] {
        assert_eq!(written(add_path, path), canonical, "{path}");
    }
    for (query, canonical) in [
        ("", ""),
        ("b=2&a=1&a", "a=&a=1&b=2"),
        ("Qualifier=%24LATEST", "Qualifier=%24LATEST"),
        ("a=x%20y+z&b=%zz%2", "a=x%20y%2Bz&b=%25zz%252"),
        ("a=%ff%c3%A9", "a=%FF%C3%A9"),
        ("a=b=c", "a=b%3Dc"),
    ] {
        assert_eq!(written(add_query, query), canonical, "{query}");
    }
    let mut value = Vec::new();
    add_value(&mut value, b"a  b   c\td");
    assert_eq!(value, b"a b c\td");
}
