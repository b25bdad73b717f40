"""The peers, and hob in each of its ways: how each is configured, started, and known."""

import dataclasses


@dataclasses.dataclass
class System:
    """One row of the table."""

    name: str
    # Command lines, started in this order; the first one is the pool.
    start: list
    # What the command line of a worker looks like.
    worker: str
    path: str = "/"
    # Files to write before the start, by name.
    files: dict = dataclasses.field(default_factory=dict)
    # Programs that are linked there, by name: where they are.
    links: dict = dataclasses.field(default_factory=dict)
    # How it comes to have no worker: "wait" by itself, "always" after each request, "never".
    cold: str = "wait"
    # A client may use its connection again. Where a worker is a connection it may not.
    keeps: bool = True
    # It is hob, with something that is like a worker and is none.
    zygote: bool = False
    # What a worker is written in: only the same may be compared.
    kind: str = "C"


NGINX = """
daemon off; user root; worker_processes 1; pid @DIR@/nginx.pid; error_log @DIR@/nginx.log;
events { worker_connections 512; }
http {
  access_log off; keepalive_requests 100000000;
  client_body_temp_path @DIR@/t1; proxy_temp_path @DIR@/t2; fastcgi_temp_path @DIR@/t3;
  uwsgi_temp_path @DIR@/t4; scgi_temp_path @DIR@/t5;
  server {
    listen 127.0.0.1:@PORT@ backlog=512;
    location / {
      include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME @SCRIPT@;
      fastcgi_pass unix:@DIR@/sock; fastcgi_read_timeout 60s;
    }
  }
}
"""
PHP = """
[global]
error_log = @DIR@/php.log
daemonize = no
[www]
user = root
group = root
listen = @DIR@/sock
pm = ondemand
pm.max_children = @CAP@
pm.process_idle_timeout = @IDLE@s
request_terminate_timeout = @LIMIT@s
"""
LIGHTTPD = """
server.document-root = "@BIN@"
server.bind = "127.0.0.1"
server.port = @PORT@
server.errorlog = "@DIR@/lighttpd.log"
server.upload-dirs = ( "@DIR@" )
server.max-keep-alive-requests = 100000000
"""
LIGHTTPD_FASTCGI = (
    """server.modules = ( "mod_fastcgi" )"""
    + LIGHTTPD
    + """
fastcgi.server = ( "/" => (( "bin-path" => "@BIN@/fastcgi", "socket" => "@DIR@/sock",
  "check-local" => "disable", "min-procs" => 0, "max-procs" => @CAP@, "idle-timeout" => @IDLE@,
  "read-timeout" => @LIMIT@ )) )
"""
)
LIGHTTPD_CGI = (
    """server.modules = ( "mod_cgi" )"""
    + LIGHTTPD
    + """
cgi.assign = ( ".cgi" => "" )
cgi.limits = ( "read-timeout" => @LIMIT@ )
"""
)
APACHE = """
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule fcgid_module /usr/lib/apache2/modules/mod_fcgid.so
ServerName localhost
Listen 127.0.0.1:@PORT@
PidFile @DIR@/apache.pid
DefaultRuntimeDir @DIR@
ErrorLog @DIR@/apache.log
User www-data
Group www-data
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
MinSpareThreads 1
MaxSpareThreads 25
MaxKeepAliveRequests 0
KeepAliveTimeout 60
DocumentRoot @BIN@
<Directory @BIN@>
  Options +ExecCGI
  Require all granted
  SetHandler fcgid-script
</Directory>
FcgidIPCDir @DIR@
FcgidProcessTableFile @DIR@/table
FcgidMaxProcesses @CAP@
FcgidMaxProcessesPerClass @CAP@
FcgidMinProcessesPerClass 0
FcgidIdleTimeout @IDLE@
FcgidIdleScanInterval 1
FcgidErrorScanInterval 1
FcgidZombieScanInterval 1
FcgidSpawnScoreUpLimit 1000
FcgidBusyTimeout @LIMIT@
FcgidBusyScanInterval 1
FcgidIOTimeout @LIMIT@
"""
UWSGI = """
[uwsgi]
plugins-dir = /usr/lib/uwsgi/plugins
plugin = python3
http-socket = 127.0.0.1:@PORT@
master = true
workers = @CAP@
cheaper = 1
cheap = true
idle = @IDLE@
harakiri = @LIMIT@
die-on-term = true
disable-logging = true
auto-procname = true
listen = 100
pythonpath = @BIN@
module = app
"""
XINETD = """
defaults
{
  log_type = FILE @DIR@/xinetd.log
}
service bench
{
  type = UNLISTED
  id = bench
  bind = 127.0.0.1
  port = @PORT@
  socket_type = stream
  protocol = tcp
  wait = no
  user = root
  server = @BIN@/connection
  instances = @CAP@
  cps = 1000000 1
  per_source = UNLIMITED
}
"""
WEBHOOK = """
[{"id": "echo", "execute-command": "@BIN@/stdin", "command-working-directory": "/",
  "include-command-output-in-response": true,
  "pass-arguments-to-command": [{"source": "entire-payload"}]}]
"""

PEERS = [
    System(
        "php-fpm behind nginx",
        [
            ["php-fpm8.2", "-F", "-R", "-y", "@DIR@/php.conf"],
            ["nginx", "-p", "@DIR@", "-c", "@DIR@/nginx.conf"],
        ],
        "php-fpm: pool",
        files={"php.conf": PHP, "nginx.conf": NGINX.replace("@SCRIPT@", "@BIN@/echo.php")},
        kind="PHP",
    ),
    System(
        "lighttpd, FastCGI",
        [["lighttpd", "-D", "-f", "@DIR@/lighttpd.conf"]],
        "/fastcgi$",
        files={"lighttpd.conf": LIGHTTPD_FASTCGI},
    ),
    System(
        "lighttpd, CGI",
        [["lighttpd", "-D", "-f", "@DIR@/lighttpd.conf"]],
        r"cgi-bin/echo\.cgi",
        path="/cgi-bin/echo.cgi",
        files={"lighttpd.conf": LIGHTTPD_CGI},
        cold="always",
    ),
    System(
        "Apache mod_fcgid",
        [["apache2", "-DFOREGROUND", "-f", "@DIR@/apache.conf"]],
        "/fastcgi$",
        path="/fastcgi",
        files={"apache.conf": APACHE},
    ),
    System(
        "fcgiwrap behind nginx",
        [
            ["fcgiwrap", "-c", "@CAP@", "-s", "unix:@DIR@/sock"],
            ["nginx", "-p", "@DIR@", "-c", "@DIR@/nginx.conf"],
        ],
        r"cgi-bin/echo\.cgi",
        files={"nginx.conf": NGINX.replace("@SCRIPT@", "@BIN@/cgi-bin/echo.cgi")},
        cold="always",
    ),
    System(
        "busybox httpd",
        [["busybox", "httpd", "-f", "-p", "127.0.0.1:@PORT@", "-h", "@BIN@"]],
        r"cgi-bin/echo\.cgi",
        path="/cgi-bin/echo.cgi",
        cold="always",
        keeps=False,
    ),
    System(
        "tcpserver",
        [
            "tcpserver -H -R -l 0 -c @CAP@ -b 128 127.0.0.1 @PORT@ @BIN@/connection".split(),
        ],
        "^[^ ]*/connection$",
        cold="always",
        keeps=False,
    ),
    System(
        "xinetd",
        [["xinetd", "-dontfork", "-f", "@DIR@/xinetd.conf", "-pidfile", "@DIR@/pid"]],
        "connection$",
        files={"xinetd.conf": XINETD},
        cold="always",
        keeps=False,
    ),
    System(
        "webhook",
        ["webhook -hooks @DIR@/hooks.json -ip 127.0.0.1 -port @PORT@".split()],
        "/stdin",
        path="/hooks/echo",
        files={"hooks.json": WEBHOOK},
        cold="always",
    ),
    System(
        "uWSGI, cheap",
        [["uwsgi", "--ini", "@DIR@/uwsgi.ini"]],
        "uWSGI worker",
        files={"uwsgi.ini": UWSGI},
        keeps=False,
        kind="Python",
    ),
    System(
        "gunicorn",
        [
            "gunicorn -w @CAP@ -b 127.0.0.1:@PORT@ --timeout @LIMIT@ --chdir @BIN@ app:application".split(),
        ],
        "gunicorn: worker",
        cold="never",
        keeps=False,
        kind="Python",
    ),
]


def hob(name, worker, runtime, link, kind="C", cold="wait", zygote=False, spares="off"):
    """hob with one function, called by Lambda's own operation."""
    toml = f"{runtime}timeout_s = @LIMIT@\nqueue_wait_ms = 60000\n"
    toml += "max_invocations = @ONCE@\nidle_timeout_s = @IDLE@\n"
    start = "@HOB@ serve @DIR@/functions --listen 127.0.0.1:@PORT@ --data @DIR@/data"
    return System(
        f"hob, {name}",
        [f"{start} --socket @DIR@/sock --slots @CAP@ --spares {spares}".split()],
        worker,
        path="/2015-03-31/functions/echo/invocations",
        files={"functions/echo/function.toml": toml},
        links={f"functions/echo/{link[0]}": f"@BIN@/{link[1]}"},
        cold=cold,
        kind=kind,
        zygote=zygote,
    )


EXEC = 'runtime = "exec"\nhandler = "stdin"\n'
NATIVE = 'runtime = "native"\nhandler = "native"\n'
PROVIDED = 'runtime = "provided.al2023"\nhandler = "x"\n'
PYTHON = 'runtime = "python3.11"\nhandler = "app.handler"\n'
HOB = [
    hob("exec", "stdin$", EXEC, ("stdin", "stdin"), cold="always"),
    hob("native", "native$", NATIVE, ("native", "wire")),
    hob("native, Rust SDK", "native$", f'{NATIVE}zygote = "off"\n', ("native", "native"), "Rust"),
    hob("native, forked", "", f'{NATIVE}zygote = "on"\n', ("native", "native"), "Rust", zygote=True),
    hob("native, spare", "", f'{NATIVE}zygote = "on"\n', ("native", "native"), "Rust", zygote=True, spares="auto"),
    hob("provided", "bootstrap$", PROVIDED, ("bootstrap", "connection")),
    hob("Python", "python3", f'{PYTHON}zygote = "off"\n', ("app.py", "app.py"), "Python"),
    hob("Python, forked", "", PYTHON, ("app.py", "app.py"), "Python", zygote=True),
    hob("Python, spare", "", PYTHON, ("app.py", "app.py"), "Python", zygote=True, spares="auto"),
]
