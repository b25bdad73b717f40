//! Functions that invoke themselves, by themselves and through each other.

use serde_json::{Value, json};

use crate::common::http::invocations;
use crate::common::{Server, Site};

/// Invokes the first of its list of functions with the rest of it, and hands on its trace header as
/// AWS SDKs do.
const CALLER: &str = r#"#!/usr/bin/env python3
import json, os, sys, urllib.error, urllib.request
chain = json.load(sys.stdin)
told = {"trace": [os.environ["_X_AMZN_TRACE_ID"]]}
if chain:
    base = os.environ["AWS_ENDPOINT_URL_LAMBDA"]
    url = f"{base}/2015-03-31/functions/{chain[0]}/invocations"
    fields = {"X-Amzn-Trace-Id": os.environ["_X_AMZN_TRACE_ID"]}
    request = urllib.request.Request(url, json.dumps(chain[1:]).encode(), fields)
    try:
        inner = json.load(urllib.request.urlopen(request))
        told = {**inner, "trace": told["trace"] + inner["trace"]}
    except urllib.error.HTTPError as error:
        told["refused"] = [error.code, error.headers["x-amzn-errortype"], json.load(error)]
json.dump(told, sys.stdout)
"#;

fn site() -> (Site, Server) {
    let site = Site::new();
    site.script("again", "exec", CALLER, "timeout_s = 60");
    site.script("ping", "exec", CALLER, "timeout_s = 60");
    let meant = "timeout_s = 60\nrecursive_loop = \"allow\"";
    site.script("meant", "exec", CALLER, meant);
    let server = site.serve(&["--slots", "64"]);
    (site, server)
}

/// Begins a chain with its first function: the traces that its functions saw, and why it broke off.
fn chain(server: &Server, functions: &[&str]) -> (Vec<String>, Value) {
    let mut told = server.ok(functions[0], &json!(functions[1..]).to_string());
    let traces = told["trace"].as_array().unwrap();
    let traces = traces.iter().map(|trace| trace.as_str().unwrap().to_owned()).collect();
    (traces, told["refused"].take())
}

#[test]
fn a_function_that_invokes_itself_for_ever_is_stopped() {
    let (_site, server) = site();
    let (traces, refused) = chain(&server, &["again"; 30]);
    assert_eq!(traces.len(), 16);
    let message = "Lambda has detected your function again being invoked in a recursive loop with \
                   other AWS resources and stopped your function's invocation.";
    let body = json!({"Type": "User", "Message": message});
    assert_eq!(refused, json!([400, "RecursiveInvocationException", body]));
    let (root, lineage) = traces[0].split_once(";Lineage=").unwrap();
    let own = lineage.strip_suffix(":1").unwrap();
    for (n, trace) in traces.iter().enumerate() {
        assert_eq!(trace, &format!("{root};Lineage={own}:{}", n + 1));
    }
    let log = server.hob(&["logs", "again"]).out;
    assert!(log.contains("not invoked: a chain of invocations led here 16 times"), "{log}");
    // A chain of its own begins anew.
    let (traces, refused) = chain(&server, &["again"; 16]);
    assert_eq!((traces.len(), refused), (16, Value::Null));
    server.stop();
}

#[test]
fn a_loop_through_other_functions_is_the_same_loop() {
    let (_site, server) = site();
    let (traces, refused) = chain(&server, &["meant", "ping", "again"].repeat(20));
    assert_eq!((traces.len(), &refused[0]), (16 * 3 + 1, &400.into()), "the 17th ping");
    assert!(refused[2]["Message"].as_str().unwrap().contains("your function ping being"));
    server.stop();
}

#[test]
fn a_loop_that_is_meant_goes_on() {
    let (_site, server) = site();
    let (traces, refused) = chain(&server, &["meant"; 20]);
    assert_eq!((traces.len(), refused), (20, Value::Null));
    assert!(traces[19].ends_with(":20"), "{}", traces[19]);
    server.stop();
}

#[test]
fn whoever_sends_a_lineage_gets_no_further_than_that() {
    let (_site, server) = site();
    let trace = server.ok("again", "[]")["trace"][0].as_str().unwrap().to_owned();
    let own = trace.split_once(";Lineage=").unwrap().1.strip_suffix(":1").unwrap();
    let mut conn = server.connect();
    for (lineage, status) in [
        (format!("Lineage={own}:15"), 200),
        (format!("Lineage={own}:16"), 400),
        (format!("Root=1;Lineage=00000000:99|{own}:99999999999999"), 400),
        (format!("Lineage=;Lineage={own}:16"), 400),
        ("Lineage=:::|||".to_owned(), 200),
        (format!("Lineage={}", "|".repeat(500)), 200),
        (format!("Lineage={}", "12345678:1|".repeat(45)), 200),
    ] {
        let fields = [("X-Amzn-Trace-Id", lineage.as_str())];
        let reply = conn.post(&invocations("again"), &fields, b"[]");
        assert_eq!(reply.status, status, "{lineage}");
    }
    server.stop();
}
