//! Functions that change while they are used.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::http::Conn;
use crate::common::{Site, eventually, executable};

crate::both_reapers![
    a_changed_folder_is_swapped_as_a_whole_under_load,
    a_broken_folder_answers_404_until_it_is_repaired,
    functions_come_and_go_with_their_folders,
    a_push_replaces_and_survives_a_restart,
    sighup_reads_settings_and_functions_again,
    pushes_at_one_time_do_not_mix,
    a_folder_that_comes_during_a_push_counts,
    a_push_while_the_store_is_cleaned_is_not_cleaned_away,
    old_code_does_not_pile_up,
    folders_that_cannot_be_read_yet_are_read_later,
    functions_beyond_what_a_look_can_tell_stay,
    a_monstrous_configuration_is_refused_and_holds_up_nobody,
];

fn version(site: &Site, name: &str, n: u32) {
    // Two files that belong together, written one after the other: no invocation may see a mix.
    let script = format!("#!/bin/sh\nprintf '[{n},%s]' \"$(cat part)\"\n");
    let folder = site.script(name, "exec", &script, &format!("# version {n}"));
    fs::write(folder.join("part"), n.to_string()).unwrap();
}

fn a_changed_folder_is_swapped_as_a_whole_under_load(reaper: &[&str]) {
    let site = Site::new();
    version(&site, "demo", 1);
    let server = site.serve(reaper);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut newest, mut count) = (1, 0);
            while !done.load(Ordering::Relaxed) {
                let pair = server.ok("demo", "{}");
                assert_eq!(pair[0], pair[1], "a mix of two versions");
                let n = pair[0].as_u64().unwrap();
                assert!(n >= newest, "{n} after {newest}");
                newest = n;
                count += 1;
            }
            count
        });
        for n in 2..5 {
            version(&site, "demo", n);
            let now = || (server.ok("demo", "{}")[0] == n).then_some(());
            eventually("the new version serves", now);
        }
        done.store(true, Ordering::Relaxed);
        assert!(load.join().unwrap() > 10);
    });
    server.stop();
}

fn a_broken_folder_answers_404_until_it_is_repaired(reaper: &[&str]) {
    let site = Site::new();
    version(&site, "good", 1);
    let folder = site.function("bad", "runtime = \"exec\"\nhandler = \"run\"\ntimeout_s = 0\n");
    let server = site.serve(reaper);
    assert_eq!(server.ok("good", "{}")[0], 1);
    let reply = server.invoke("bad", "{}");
    assert_eq!(
        (reply.status, reply.field("x-amzn-errortype")),
        (404, Some("ResourceNotFoundException"))
    );
    let place = folder.join("function.toml");
    let complaint = format!("{}:3: timeout_s: 0 is out of range, allowed: 1..900", place.display());
    assert!(server.log().contains(&complaint), "{}", server.log());
    assert!(server.hob(&["show", "bad"]).out.contains(&complaint));
    version(&site, "bad", 7);
    eventually("it is repaired", || (server.invoke("bad", "{}").status == 200).then_some(()));
    fs::write(&place, "runtime = \"exec\"\nhandler = \"run\"\nfoo = 1\n").unwrap();
    eventually("it is broken again", || (server.invoke("bad", "{}").status == 404).then_some(()));
    assert_eq!(server.ok("good", "{}")[0], 1);
    server.stop();
}

fn functions_come_and_go_with_their_folders(reaper: &[&str]) {
    let site = Site::new();
    let server = site.serve(reaper);
    assert_eq!(server.invoke("demo", "{}").status, 404);
    version(&site, "demo", 1);
    eventually("it is there", || (server.invoke("demo", "{}").status == 200).then_some(()));
    // Deep below, and by moving: every kind of change is seen.
    let folder = site.functions().join("demo");
    fs::create_dir_all(folder.join("a/b")).unwrap();
    executable(&folder.join("bootstrap"), "#!/bin/sh\ncat a/b/deep\n");
    fs::write(folder.join("a/b/deep"), "\"deep\"").unwrap();
    eventually("the change is seen", || {
        (server.invoke("demo", "{}").text() == "\"deep\"").then_some(())
    });
    fs::write(site.path().join("new"), "\"moved\"").unwrap();
    fs::rename(site.path().join("new"), folder.join("a/b/deep")).unwrap();
    eventually("the move is seen", || {
        (server.invoke("demo", "{}").text() == "\"moved\"").then_some(())
    });
    fs::rename(&folder, site.functions().join("other")).unwrap();
    eventually("the old name is gone", || {
        (server.invoke("demo", "{}").status == 404).then_some(())
    });
    eventually("the new name is there", || {
        (server.invoke("other", "{}").status == 200).then_some(())
    });
    fs::remove_dir_all(site.functions().join("other")).unwrap();
    eventually("it is gone", || (server.invoke("other", "{}").status == 404).then_some(()));
    assert_eq!(server.get("/hob/functions"), serde_json::json!([]));
    server.stop();
}

fn a_push_replaces_and_survives_a_restart(reaper: &[&str]) {
    let site = Site::new();
    version(&site, "folder", 1);
    let elsewhere = Site::new();
    version(&elsewhere, "demo", 1);
    let server = site.serve(reaper);
    let path = elsewhere.functions().join("demo");
    let push = |server: &crate::common::Server, path: &std::path::Path, name: &str| {
        server.hob(&["push", path.to_str().unwrap(), "--name", name])
    };
    assert_eq!(push(&server, &path, "demo").code, 0);
    assert_eq!(server.ok("demo", "{}")[0], 1);
    version(&elsewhere, "demo", 2);
    assert_eq!(push(&server, &path, "demo").code, 0);
    assert_eq!(server.ok("demo", "{}")[0], 2, "in force with the answer");
    // What cannot run is refused and changes nothing.
    fs::remove_file(path.join("bootstrap")).unwrap();
    let refused = push(&server, &path, "demo");
    assert_eq!(refused.code, 3);
    assert!(
        refused.err.contains("demo/function.toml: handler bootstrap is missing"),
        "{}",
        refused.err
    );
    assert_eq!(server.ok("demo", "{}")[0], 2);
    let taken = push(&server, &site.functions().join("folder"), "folder");
    assert!(taken.err.contains("function folder is the folder"), "{}", taken.err);
    assert_eq!(server.hob(&["rm", "folder"]).code, 3, "a folder is removed as a folder");
    server.stop();
    let server = site.serve(reaper);
    assert_eq!(server.ok("demo", "{}")[0], 2);
    assert_eq!(server.hob(&["rm", "demo"]).code, 0);
    assert_eq!(server.invoke("demo", "{}").status, 404);
    server.stop();
    let server = site.serve(reaper);
    assert_eq!(server.invoke("demo", "{}").status, 404);
    server.stop();
}

fn pushes_at_one_time_do_not_mix(reaper: &[&str]) {
    let site = Site::new();
    let server = site.serve(reaper);
    let names = ["a", "b", "c", "d"];
    let folder = |name: &str| site.path().join("away").join(name);
    for round in 0..4 {
        for name in names {
            fs::create_dir_all(folder(name)).unwrap();
            let toml = "runtime = \"exec\"\nhandler = \"bootstrap\"\n";
            fs::write(folder(name).join("function.toml"), toml).unwrap();
            let script = format!("#!/bin/sh\necho '\"{name} {round}\"'\n");
            executable(&folder(name).join("bootstrap"), &script);
        }
        std::thread::scope(|scope| {
            for name in names {
                let (folder, server) = (folder(name), &server);
                let push = move || server.hob(&["push", folder.to_str().unwrap(), "--name", name]);
                scope.spawn(move || assert_eq!(push().code, 0));
            }
        });
        for name in names {
            assert_eq!(server.ok(name, "{}"), format!("{name} {round}"));
        }
    }
    server.stop();
}

/// A zip of a function that replies `reply`.
fn zipped(site: &Site, reply: &str) -> Vec<u8> {
    use zip::write::SimpleFileOptions;
    let mut zip = zip::ZipWriter::new(fs::File::create(site.path().join("zip")).unwrap());
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, mode, text) in [
        ("function.toml", 0o644, "runtime = \"exec\"\nhandler = \"run\"\n".to_owned()),
        ("run", 0o755, format!("#!/bin/sh\necho '{reply}'\n")),
    ] {
        zip.start_file(name, stored.unix_permissions(mode)).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
    fs::read(site.path().join("zip")).unwrap()
}

fn a_folder_that_comes_during_a_push_counts(reaper: &[&str]) {
    let site = Site::new();
    let server = site.serve(reaper);
    let zip = zipped(&site, "7");
    let mut push = server.connect();
    let length = zip.len();
    push.send(format!(
        "PUT /hob/functions/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    ));
    push.send(&zip[..100]);
    push.taken();
    version(&site, "demo", 1);
    eventually("the folder is there", || (server.invoke("demo", "{}").status == 200).then_some(()));
    push.send(&zip[100..]);
    let reply = push.reply();
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert_eq!(server.ok("demo", "{}")[0], 1);
    let empty =
        |part: &str| fs::read_dir(site.path().join("data").join(part)).unwrap().count() == 0;
    assert!(empty("functions") && empty("incoming"), "nothing is left of the push");
    server.stop();
}

fn a_push_while_the_store_is_cleaned_is_not_cleaned_away(reaper: &[&str]) {
    let site = Site::new();
    let zip = zipped(&site, "7");
    // Cleaning reads this note, and waits for its writer.
    let note = site.path().join("data/folders/slow");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &note, 0o600.into()).unwrap();
    let server = site.serve_loading(reaper);
    std::thread::scope(|scope| {
        let push = scope.spawn(|| {
            let mut push = Conn::unix(&site.path().join("hob.sock"));
            push.request("PUT", "/hob/functions/demo", &[], &zip);
            push.reply()
        });
        eventually("the server hears who pushes", || {
            let socket = site.path().join("hob.sock");
            (Conn::unix(&socket).get("/hob/server").status == 200).then_some(())
        });
        assert!(!push.is_finished());
        fs::write(&note, "").unwrap();
        let reply = push.join().unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    });
    server.loaded();
    assert_eq!(server.ok("demo", "{}"), 7);
    server.stop();
}

fn folders_that_cannot_be_read_yet_are_read_later(reaper: &[&str]) {
    let site = Site::new();
    fs::remove_dir(site.functions()).unwrap();
    let server = site.serve(reaper);
    assert_eq!(server.invoke("demo", "{}").status, 404);
    version(&site, "demo", 1);
    eventually("it is there", || (server.invoke("demo", "{}").status == 200).then_some(()));
    version(&site, "demo", 2);
    eventually("changes are seen", || (server.ok("demo", "{}")[0] == 2).then_some(()));
    let log = server.complained();
    assert_eq!(log.matches("error read functions: ").count(), 1, "{log}");
}

fn functions_beyond_what_a_look_can_tell_stay(reaper: &[&str]) {
    let site = Site::new();
    version(&site, "zz", 1);
    let server = site.serve(reaper);
    for n in 0..700 {
        // No names of functions, at length: a look says so of each of them, 400 KiB in all.
        site.function(&format!("a{n:03}.{}", "x".repeat(230)), "");
    }
    server.signal(rustix::process::Signal::HUP);
    eventually("the look is cut off", || {
        server.log().contains("read functions: too many; what comes after a").then_some(())
    });
    assert_eq!(server.ok("zz", "{}")[0], 1);
    server.stop();
}

fn old_code_does_not_pile_up(reaper: &[&str]) {
    let site = Site::new();
    let server = site.serve(reaper);
    for n in 0..6 {
        site.script("demo", "exec", &format!("#!/bin/sh\necho {n}\n"), "");
        eventually("the new code is in force", || {
            (server.invoke("demo", "{}").text().trim() == n.to_string()).then_some(())
        });
    }
    let code = || fs::read_dir(site.path().join("data/code")).unwrap().count();
    assert!(code() <= 2, "{}: what runs, and what ran last", code());
    // Nor does code that was refused, nor that of folders which are gone.
    let bad = site.path().join("bad");
    fs::create_dir(&bad).unwrap();
    for n in 0..6 {
        let toml = format!("runtime = \"exec\"\nhandler = \"absent-{n}\"\n");
        fs::write(bad.join("function.toml"), &toml).unwrap();
        assert_eq!(server.hob(&["push", bad.to_str().unwrap()]).code, 3);
        let folder = site.function("broken", &toml);
        eventually("it is refused", || {
            server.log().contains(&format!("handler absent-{n} is missing")).then_some(())
        });
        fs::remove_dir_all(folder).unwrap();
        eventually("it is gone", || {
            (server.get("/hob/functions").as_array().unwrap().len() == 1).then_some(())
        });
    }
    assert!(code() <= 3, "{}: what runs, and what was refused last", code());
    server.stop();
}

fn a_monstrous_configuration_is_refused_and_holds_up_nobody(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let server = site.serve(reaper);
    let many: String = (0..2_000).map(|n| format!("unknown_{n} = 1\n")).collect();
    site.native("many", "", &many);
    site.native("long", "", &format!("# {}", "x".repeat(70_000)));
    eventually("both are refused", || {
        let all = server.get("/hob/functions");
        let refused = |name: &str| {
            all.as_array().unwrap().iter().any(|f| f["name"] == name && f["state"] == "refused")
        };
        (refused("many") && refused("long")).then_some(())
    });
    let issues = |name: &str| server.get(&format!("/hob/functions/{name}"))["issues"].clone();
    assert_eq!(issues("many").as_array().unwrap().len(), 21, "{}", issues("many"));
    assert!(issues("long").to_string().contains("longer than 65536 bytes"), "{}", issues("long"));
    server.ok("well", "{}");
    server.stop();
}

fn sighup_reads_settings_and_functions_again(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let config = site.path().join("hob.toml");
    fs::write(&config, "idle_timeout_s = 600\n").unwrap();
    let server = site.serve(&[reaper, &["--config", config.to_str().unwrap()]].concat());
    server.ok("demo", "{}");
    fs::write(&config, "idle_timeout_s = -1\n").unwrap();
    server.signal(rustix::process::Signal::HUP);
    eventually("the complaint is logged", || {
        server.log().contains("idle_timeout_s: -1 is out of range").then_some(())
    });
    fs::write(&config, "idle_timeout_s = 0\n").unwrap();
    server.signal(rustix::process::Signal::HUP);
    eventually("the new time counts", || {
        server.ok("demo", "{}");
        (server.get("/hob/functions/demo")["idle_timeout_s"] == 0).then_some(())
    });
    eventually("and the worker goes", || server.workers().is_empty().then_some(()));
    let log = server.complained();
    assert!(log.contains("nothing changed"), "{log}");
}
