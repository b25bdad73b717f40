//! What workers see of the disk: code, layers, `/tmp`, as AWS has them or where they really are.

use std::fs;
use std::path::Path;

use crate::common::{Server, Site, eventually, executable, exists};

crate::both_reapers![
    later_layers_win_and_programs_of_layers_are_found,
    a_changed_layer_is_picked_up_and_a_missing_one_is_refused,
    two_functions_may_share_a_layer,
    a_pushed_function_has_no_folders_as_layers,
    a_bootstrap_may_be_a_layers,
    python_and_node_find_packages_of_layers,
    code_is_at_var_task_and_read_only,
    each_worker_has_a_tmp_of_its_own,
    paths_of_the_sandbox_stay_in_sight,
    workers_of_a_zygote_have_a_tmp_each,
    nothing_is_mounted_on_the_machine,
];

/// A worker that runs its event, a shell command, and replies what that wrote.
const SHELL: &str = r"#!/usr/bin/env python3
import http.client, json, os, subprocess
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
api = http.client.HTTPConnection(host, int(port))
def ask(method, path, body=None):
    api.request(method, '/2018-06-01/runtime/invocation/' + path, body)
    reply = api.getresponse()
    return reply, reply.read()
while True:
    reply, event = ask('GET', 'next')
    ran = subprocess.run(['sh', '-c', json.loads(event)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    id = reply.getheader('Lambda-Runtime-Aws-Request-Id')
    ask('POST', id + '/response', json.dumps(ran.stdout.strip()))
";

fn shell(site: &Site, name: &str, more: &str) {
    site.script(name, "provided", SHELL, more);
}

fn run(server: &Server, name: &str, command: &str) -> String {
    let event = serde_json::Value::from(command).to_string();
    server.ok(name, &event).as_str().unwrap().to_owned()
}

/// True if workers have paths as on AWS; otherwise the server says why not.
fn is_as_on_aws(server: &Server) -> bool {
    let paths = server.get("/hob/server")["paths"].as_str().unwrap().to_owned();
    assert!(server.log().contains(&format!("paths of workers: {paths}")));
    if !rustix::process::geteuid().is_root() {
        let why = ["only root may make mount namespaces", "as configured by paths"];
        assert!(why.iter().any(|why| paths == format!("the real ones, in variables: {why}")));
    }
    paths == "as on AWS, by a mount namespace"
}

fn layer(site: &Site, name: &str, files: &[(&str, &str)]) {
    for (file, text) in files {
        let path = site.path().join("layers").join(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        executable(&path, text);
    }
}

const BOTH: &str = "layers = [\"../../layers/one\", \"../../layers/two\"]";

fn later_layers_win_and_programs_of_layers_are_found(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, "one", &[("both", "1"), ("first", "1"), ("bin/tool", "#!/bin/sh\necho one\n")]);
    layer(&site, "two", &[("both", "2"), ("second", "2"), ("lib/x.so", "")]);
    let absolute = format!("layers = [{:?}]", site.path().join("layers/one"));
    let look = "cd ${HOB_OPT:-/opt} && echo $(cat both first second) $(tool) && pwd && \
                echo $PATH $LD_LIBRARY_PATH";
    shell(&site, "shell", BOTH);
    shell(&site, "absolute", &absolute);
    let script = format!("#!/bin/sh\nprintf '\"%s\"' \"$( ({look}) | tr '\\n' ' ')\"\n");
    site.script("exec", "exec", &script, BOTH);
    for paths in ["auto", "real"] {
        let server = site.serve(&[reaper, &["--paths", paths]].concat());
        let is_as_on_aws = is_as_on_aws(&server);
        assert!(!is_as_on_aws || paths == "auto");
        let kept = site.path().join("data/layers");
        for (name, is_real) in [("shell", !is_as_on_aws), ("exec", true)] {
            let seen = match name {
                "exec" => server.ok(name, "{}").as_str().unwrap().to_owned(),
                _ => run(&server, name, look),
            };
            let words: Vec<&str> = seen.split_whitespace().collect();
            assert_eq!(words[..2], ["212", "one"], "{seen}");
            let opt = Path::new(words[2]);
            assert_eq!(opt.parent() == Some(&kept), is_real, "{seen}");
            assert_eq!(opt == Path::new("/opt"), !is_real, "{seen}");
            assert!(words[3].ends_with(&format!(":/bin:{}/bin", opt.display())), "{seen}");
            assert!(words[4].ends_with(&format!("/lib:{}/lib", opt.display())), "{seen}");
        }
        assert_eq!(run(&server, "absolute", "ls ${HOB_OPT:-/opt}"), "bin\nboth\nfirst");
        server.stop();
    }
}

fn a_changed_layer_is_picked_up_and_a_missing_one_is_refused(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, "one", &[("deep/text", "1")]);
    shell(&site, "good", "");
    shell(&site, "demo", BOTH);
    let server = site.serve(reaper);
    assert_eq!(server.invoke("demo", "\"true\"").status, 404);
    let place = site.functions().join("demo/function.toml").display().to_string();
    let complaint = format!("{place}: layers: ../../layers/two is missing: no directory /");
    assert!(server.log().contains(&complaint), "{}", server.log());
    assert!(server.hob(&["show", "demo"]).out.contains(&complaint));
    assert_eq!(run(&server, "good", "echo well"), "well");
    layer(&site, "two", &[("other", "")]);
    let text = || {
        let reply = server.invoke("demo", "\"cat ${HOB_OPT:-/opt}/deep/text\"");
        (reply.status == 200).then(|| reply.text())
    };
    eventually("it is repaired", || text().filter(|text| text == "\"1\""));
    layer(&site, "one", &[("deep/text", "2")]);
    eventually("the change is seen", || text().filter(|text| text == "\"2\""));
    fs::remove_dir_all(site.path().join("layers/two")).unwrap();
    fs::write(site.path().join("layers/two"), "").unwrap();
    eventually("it is refused again", || text().is_none().then_some(()));
    eventually("with its reason", || {
        server.log().contains("layers: ../../layers/two is not a directory").then_some(())
    });
    fs::remove_file(site.path().join("layers/two")).unwrap();
    layer(&site, "two", &[("deep/text", "3")]);
    eventually("and repaired again", || text().filter(|text| text == "\"3\""));
    // What is no longer used goes, as code does.
    shell(&site, "demo", "");
    eventually("without layers", || {
        (server.get("/hob/functions/demo")["layers"] == serde_json::json!([])).then_some(())
    });
    shell(&site, "good", "# changed");
    let layers = || fs::read_dir(site.path().join("data/layers")).unwrap().count();
    eventually("its layers are gone", || {
        server.signal(rustix::process::Signal::HUP);
        (layers() == 0).then_some(())
    });
    server.stop();
}

fn two_functions_may_share_a_layer(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, "one", &[("text", "1")]);
    for name in ["a", "b"] {
        shell(&site, name, "layers = [\"../../layers/one\"]");
    }
    let server = site.serve(reaper);
    for n in ["2", "3"] {
        layer(&site, "one", &[("text", n)]);
        for name in ["a", "b"] {
            eventually("both see the change", || {
                (run(&server, name, "cat ${HOB_OPT:-/opt}/text") == n).then_some(())
            });
        }
    }
    server.stop();
}

fn a_pushed_function_has_no_folders_as_layers(reaper: &[&str]) {
    let (site, away) = (Site::new(), Site::new());
    shell(&away, "demo", "layers = [\"/usr/share/fonts\"]");
    let server = site.serve(reaper);
    let pushed = server.hob(&["push", away.functions().join("demo").to_str().unwrap()]);
    let complaint = "demo/function.toml: layers: /usr/share/fonts is a folder, and a pushed \
                     function has none (allowed: name:version)";
    assert!(pushed.err.contains(complaint), "{}", pushed.err);
    assert_eq!(server.invoke("demo", "{}").status, 404);
    server.stop();
}

fn a_bootstrap_may_be_a_layers(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, "one", &[("bootstrap", SHELL)]);
    site.function("demo", "runtime = \"provided.al2023\"\nlayers = [\"../../layers/one\"]\n");
    for paths in ["auto", "real"] {
        let server = site.serve(&[reaper, &["--paths", paths]].concat());
        assert_eq!(run(&server, "demo", "ls"), "function.toml");
        server.stop();
    }
}

fn python_and_node_find_packages_of_layers(reaper: &[&str]) {
    let site = Site::new();
    layer(
        &site,
        "one",
        &[
            ("python/parcel.py", "where = __file__"),
            ("nodejs/node_modules/parcel/index.js", "exports.where = __filename;"),
        ],
    );
    let function = |name: &str, runtime: &str, file: &str, program: &str| {
        let toml = format!("runtime = {runtime:?}\nhandler = \"app.handler\"\n");
        let layers = "layers = [\"../../layers/one\"]\n";
        fs::write(site.function(name, &format!("{toml}{layers}")).join(file), program).unwrap();
    };
    let python = "import parcel\ndef handler(event, context): return parcel.where\n";
    function("python", "python3.11", "app.py", python);
    let required = "exports.handler = async () => require('parcel').where;";
    function("required", "nodejs20.x", "app.js", required);
    let imported = "import parcel from 'parcel';\nexport const handler = async () => parcel.where;";
    function("imported", "nodejs20.x", "app.mjs", imported);
    for paths in ["auto", "real"] {
        let server = site.serve(&[reaper, &["--paths", paths]].concat());
        let opt = if is_as_on_aws(&server) { Path::new("/opt") } else { site.path() };
        for (name, file) in [
            ("python", "python/parcel.py"),
            ("required", "nodejs/node_modules/parcel/index.js"),
            ("imported", "nodejs/node_modules/parcel/index.js"),
        ] {
            if server.invoke(name, "{}").status == 404 {
                assert!(server.log().contains("needs Node.js, and none is here"));
                continue;
            }
            let seen = server.ok(name, "{}").as_str().unwrap().to_owned();
            assert!(seen.ends_with(file) && Path::new(&seen).starts_with(opt), "{name}: {seen}");
        }
        server.stop();
    }
}

fn code_is_at_var_task_and_read_only(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, "one", &[("text", "")]);
    shell(&site, "demo", "layers = [\"../../layers/one\"]");
    shell(&site, "plain", "");
    site.script("exec", "exec", "#!/bin/sh\nprintf '\"%s\"' $LAMBDA_TASK_ROOT\n", "");
    let server = site.serve(reaper);
    let code = site.path().join("data/code").display().to_string();
    assert!(server.ok("exec", "{}").as_str().unwrap().starts_with(&code), "exec has real paths");
    let told = run(&server, "demo", "echo $(pwd) $LAMBDA_TASK_ROOT $(readlink /proc/$PPID/cwd)");
    let shown = server.hob(&["show", "demo"]).out;
    if is_as_on_aws(&server) {
        assert_eq!(told, "/var/task /var/task /var/task");
        assert!(shown.contains("as on AWS, by a mount namespace\n"), "{shown}");
        let shown = server.hob(&["show", "exec"]).out;
        assert!(shown.contains("the real ones, as exec has them\n"), "{shown}");
        for file in ["/var/task/new", "/var/task/bootstrap", "/opt/new", "/opt/text"] {
            let wrote = run(&server, "demo", &format!("echo x >>{file}"));
            assert!(wrote.ends_with("Read-only file system"), "{wrote}");
        }
        assert_eq!(run(&server, "demo", "env | grep HOB_OPT"), "");
        // Without layers, /opt is the machine's.
        let opt = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut own: Vec<_> = fs::read_dir("/opt").unwrap().flatten().collect();
        own.sort_by_key(fs::DirEntry::file_name);
        let own: Vec<_> = own.iter().map(|e| e.file_name().into_string().unwrap()).collect();
        assert_eq!(opt(&run(&server, "plain", "LC_ALL=C ls -A /opt")), own);
    } else {
        assert!(told.starts_with(&code), "{told}");
        assert!(shown.contains("the real ones, in variables"), "{shown}");
    }
    server.stop();
    let server = site.serve(&[reaper, &["--paths", "real"]].concat());
    assert!(run(&server, "demo", "echo $LAMBDA_TASK_ROOT").starts_with(&code));
    assert!(server.log().contains("the real ones, in variables: as configured by paths"));
    let seen = run(&server, "demo", &format!("ls -d {}", site.path().display()));
    assert_eq!(seen, site.path().to_str().unwrap(), "/tmp is the machine's");
    server.stop();
}

fn each_worker_has_a_tmp_of_its_own(reaper: &[&str]) {
    let site = Site::new();
    for name in ["a", "b"] {
        shell(&site, name, "");
    }
    let server = site.serve(reaper);
    if is_as_on_aws(&server) {
        let marker = tempfile::Builder::new().prefix("hob-marker-").tempfile_in("/tmp").unwrap();
        let look = format!("ls -A /tmp; ls {} 2>/dev/null", marker.path().display());
        assert_eq!(run(&server, "a", &look), "", "empty, and not the machine's");
        assert_eq!(run(&server, "a", "stat -c '%a %F' /tmp"), "1777 directory");
        let kib: u64 = run(&server, "a", "df -k --output=size /tmp | tail -n 1").parse().unwrap();
        assert!((1..=512 * 1024).contains(&kib), "{kib}");
        let name = "hob-test-of-a-workers-own-tmp";
        let wrote = run(&server, "a", &format!("echo mine >/tmp/{name}; cat /tmp/{name}"));
        assert_eq!(wrote, "mine");
        assert_eq!(run(&server, "b", "ls -A /tmp"), "");
        assert!(!Path::new("/tmp").join(name).exists());
        assert_eq!(run(&server, "a", "ls -A /tmp"), name, "it stays while the worker does");
        let pid = server.workers_of("a")[0]["pid"].as_i64().unwrap();
        server.invoke("a", "\"kill -9 $PPID\"");
        eventually("it is gone", || (!exists(pid)).then_some(()));
        assert_eq!(run(&server, "a", "ls -A /tmp"), "", "another worker, another /tmp");
    }
    server.stop();
}

fn paths_of_the_sandbox_stay_in_sight(reaper: &[&str]) {
    let site = Site::new();
    let place = tempfile::Builder::new().prefix("hob-shared-").tempdir_in("/tmp").unwrap();
    let path = |name: &str| place.path().join(name);
    fs::create_dir_all(path("read/deep")).unwrap();
    fs::create_dir(path("write")).unwrap();
    fs::create_dir(path("hidden")).unwrap();
    fs::write(path("read/deep/text"), "told").unwrap();
    fs::write(path("file"), "a file").unwrap();
    let names = |names: &[&str]| {
        names.iter().map(|n| format!("{:?}", path(n))).collect::<Vec<_>>().join(", ")
    };
    let (read, write) = (names(&["read", "file", "absent"]), names(&["write"]));
    shell(&site, "demo", &format!("[sandbox]\nread = [{read}]\nwrite = [{write}]\n"));
    let server = site.serve(reaper);
    let root = place.path().display();
    assert_eq!(
        run(&server, "demo", &format!("cat {root}/read/deep/text {root}/file")),
        "tolda file"
    );
    assert_eq!(run(&server, "demo", &format!("echo back >{root}/write/new")), "");
    assert_eq!(fs::read_to_string(path("write/new")).unwrap(), "back\n");
    if is_as_on_aws(&server) {
        for file in ["read/new", "read/deep/text", "file"] {
            let wrote = run(&server, "demo", &format!("echo x >>{root}/{file}"));
            assert!(wrote.ends_with("Read-only file system"), "{wrote}");
        }
        assert_eq!(run(&server, "demo", &format!("ls -A {root}")), "file\nread\nwrite");
        assert_eq!(run(&server, "demo", "ls -A /tmp | wc -l"), "1");
        assert_eq!(run(&server, "demo", "pwd; ls"), "/var/task\nbootstrap\nfunction.toml");
    }
    assert!(!server.log().contains("not yet in force"), "{}", server.log());
    server.stop();
}

fn workers_of_a_zygote_have_a_tmp_each(reaper: &[&str]) {
    let site = Site::new();
    let place = tempfile::Builder::new().prefix("hob-shared-").tempdir_in("/tmp").unwrap();
    fs::create_dir(place.path().join("read")).unwrap();
    let program = "import os, subprocess
def handler(event, context):
    if event == 'fail': raise ValueError('told')
    ran = subprocess.run(['sh', '-c', event], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    return ran.stdout.strip()
";
    let python = |name: &str, more: &str, program: &str| {
        let toml = format!("runtime = \"python3.11\"\nhandler = \"app.handler\"\n{more}\n");
        fs::write(site.function(name, &toml).join("app.py"), program).unwrap();
    };
    let read = format!("[sandbox]\nread = [{:?}]", place.path().join("read"));
    let once = "max_invocations = 1\nreserved_concurrency = 1\nqueue_wait_ms = 10000\n";
    python("demo", &format!("{once}zygote = \"on\"\n{read}"), program);
    python("untidy", "", &format!("open('/tmp/left', 'w')\n{program}"));
    let server = site.serve(reaper);
    if !is_as_on_aws(&server) {
        return server.stop();
    }
    let root = place.path().display();
    let look = format!("ls -A {root}; echo x >{root}/read/new; ls -A /tmp | wc -l; touch /tmp/new");
    for _ in 0..3 {
        let seen = run(&server, "demo", &look);
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines[1].ends_with("Read-only file system"), "{seen}");
        // What is kept of the machine's: here, and where hob's own Python files are.
        assert_eq!((lines[0], lines[2]), ("read", "2"), "{seen}");
    }
    let reply = server.invoke("demo", "\"fail\"").text();
    assert!(reply.contains("File \\\"/var/task/app.py\\\", line 3, in handler"), "{reply}");
    assert_eq!(run(&server, "untidy", "ls /tmp/left"), "/tmp/left");
    let why = "function untidy: workers are not forked: the import left files in /tmp: left";
    assert!(server.log().contains(why), "{}", server.log());
    assert!(!server.log().contains("function demo: workers are not forked"), "{}", server.log());
    server.stop();
}

fn nothing_is_mounted_on_the_machine(reaper: &[&str]) {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let site = Site::new();
    layer(&site, "one", &[("text", "")]);
    let sandbox = format!("[sandbox]\nwrite = [{:?}]", site.path());
    shell(&site, "demo", &format!("layers = [\"../../layers/one\"]\n{sandbox}"));
    let server = site.serve(reaper);
    let before = mounts();
    run(&server, "demo", "sleep 1000 >/dev/null 2>&1 &");
    assert_eq!(mounts(), before, "while it runs");
    let seen = run(&server, "demo", "wc -l </proc/self/mountinfo").parse::<usize>().unwrap();
    assert_eq!(seen > before.lines().count(), is_as_on_aws(&server));
    server.invoke("demo", "\"kill -9 $PPID\"");
    eventually("the worker is gone", || server.workers().is_empty().then_some(()));
    assert_eq!(mounts(), before, "after it was killed");
    server.stop();
    assert_eq!(mounts(), before);
}
