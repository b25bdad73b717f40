//! One process per invocation.

use crate::common::{Site, children, eventually, exists};

crate::both_reapers![
    the_event_goes_in_and_the_reply_comes_out,
    a_bad_status_is_an_error_with_the_last_lines,
    programs_that_do_odd_things_with_their_pipes,
    replies_are_bounded,
    programs_of_the_system_and_arguments,
];

fn the_event_goes_in_and_the_reply_comes_out(reaper: &[&str]) {
    let site = Site::new();
    site.script("cat", "exec", "#!/bin/sh\ncat\n", "");
    let script = "#!/bin/sh\necho \"{\\\"id\\\":\\\"$HOB_REQUEST_ID\\\",\\\"deadline\\\":$HOB_DEADLINE_MS,\
                  \\\"arn\\\":\\\"$HOB_FUNCTION_ARN\\\",\\\"name\\\":\\\"$AWS_LAMBDA_FUNCTION_NAME\\\",\
                  \\\"pwd\\\":\\\"$PWD\\\",\\\"root\\\":\\\"$LAMBDA_TASK_ROOT\\\",\\\"x\\\":\\\"$XY\\\"}\"\n";
    site.script("env", "exec", script, "environment = { XY = \"y z\" }");
    let server = site.serve(reaper);
    for event in ["{}", "[1,2,3]", "\"é\"", &format!("\"{}\"", "x".repeat(1_000_000))] {
        assert_eq!(server.invoke("cat", event).text(), event);
    }
    assert_eq!(server.invoke("cat", "").text(), "{}", "no payload is an empty event");
    let reply = server.invoke("env", "{}");
    let context = reply.json();
    assert_eq!(context["id"], reply.field("x-amzn-requestid").unwrap());
    assert_eq!(context["arn"], "arn:aws:lambda:us-east-1:000000000000:function:env");
    assert_eq!((&context["name"], &context["x"]), (&"env".into(), &"y z".into()));
    assert_eq!(context["pwd"], context["root"]);
    assert!(context["deadline"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(server.workers().is_empty(), "nothing stays");
    server.stop();
}

fn a_bad_status_is_an_error_with_the_last_lines(reaper: &[&str]) {
    let site = Site::new();
    let script =
        "#!/bin/sh\necho half a reply\nfor n in 1 2 3; do echo \"line $n\" >&2; done\nexit 4\n";
    site.script("bad", "exec", script, "");
    site.script("mute", "exec", "#!/bin/sh\nexit 4\n", "");
    site.script("killed", "exec", "#!/bin/sh\necho words >&2\nkill -9 $$\n", "");
    site.script("hangs", "exec", "#!/bin/sh\nsleep 1000\n", "timeout_s = 1\nshutdown_grace_ms = 0");
    let server = site.serve(reaper);
    let reply = server.invoke("bad", "{}");
    assert_eq!(reply.field("x-amz-function-error"), Some("Unhandled"));
    assert_eq!(reply.json()["errorMessage"], "line 1\nline 2\nline 3");
    assert_eq!(reply.json()["errorType"], "Runtime.ExitError");
    assert!(server.fails("mute", "{}").1.ends_with("exit status 4"));
    assert!(server.fails("killed", "{}").1.ends_with("signal: killed"));
    assert_eq!(server.fails("hangs", "{}").0, "Sandbox.Timedout");
    eventually("nothing is left", || children(server.pid()).is_empty().then_some(()));
    server.stop();
}

fn programs_that_do_odd_things_with_their_pipes(reaper: &[&str]) {
    let site = Site::new();
    site.script("deaf", "exec", "#!/bin/sh\nexec <&-\necho ok\n", "");
    site.script("silent", "exec", "#!/bin/sh\nexec >&- 2>&-\nsleep 0.1\n", "");
    // It leaves a child behind that holds its output: the reply does not wait for that one.
    let script = "#!/bin/sh\nsleep 1000 &\necho \"{\\\"left\\\":$!}\"\n";
    site.script("messy", "exec", script, "");
    let server = site.serve(reaper);
    let large = format!("\"{}\"", "x".repeat(500_000));
    assert_eq!(server.invoke("deaf", large).text(), "ok\n");
    let reply = server.invoke("silent", "{}");
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    let left = server.ok("messy", "{}")["left"].as_i64().unwrap();
    eventually("what it left is gone", || (!exists(left)).then_some(()));
    server.stop();
}

fn replies_are_bounded(reaper: &[&str]) {
    let site = Site::new();
    let script = "#!/bin/sh\nhead -c \"$(cat)\" /dev/zero\n";
    site.script("zeros", "exec", script, "timeout_s = 30");
    site.script("endless", "exec", "#!/bin/sh\nexec cat /dev/zero\n", "timeout_s = 30");
    let server = site.serve(reaper);
    let most = 6 * 1024 * 1024 + 100;
    assert_eq!(server.invoke("zeros", most.to_string()).body.len(), most);
    for (name, event) in [("zeros", (most + 1).to_string()), ("endless", "{}".to_owned())] {
        let (kind, text) = server.fails(name, &event);
        assert_eq!(kind, "Function.ResponseSizeTooLarge");
        let expected =
            "Response payload size exceeded maximum allowed payload size (6291556 bytes).";
        assert_eq!(text, expected);
    }
    server.stop();
}

fn programs_of_the_system_and_arguments(reaper: &[&str]) {
    let site = Site::new();
    site.function("sed", "runtime = \"exec\"\nhandler = \"sed -e 's/a b/c d/'\"");
    site.function("abs", "runtime = \"exec\"\nhandler = \"/bin/cat\"");
    let server = site.serve(reaper);
    assert_eq!(server.invoke("sed", "\"a b\"").text(), "\"c d\"");
    assert_eq!(server.invoke("abs", "1").text(), "1");
    server.stop();
}
