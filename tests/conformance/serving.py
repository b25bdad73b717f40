"""Real servers on loopback: function folders in a scratch directory, a hob process, a boto3 client.

Everything here waits for events, with a limit; nothing waits for a fixed time.
"""

import atexit
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time

import boto3
import botocore.config

REGION = "eu-central-1"
ACCOUNT = "123456789012"

# What clients sign with unless it matters.
KEY = ("AKIDEXAMPLE", "secret")

# Longest wait for anything that should happen soon.
SOON = 20

# Handlers of each client, by what they are called there.
HANDLERS = {
    "python": ("app.handler", "broken.handler"),
    "node": ("app.handler", "broken.handler"),
    "rust": ("any", "broken"),
    "shell": ("any", "broken"),
    "hob-python": ("app.handler", "broken.handler"),
    "hob-node": ("app.handler", "broken.handler"),
}

# The runtimes that are hob's own. Python is the one for which the real client is installed.
BUNDLED = {
    "hob-python": f"python3.{sys.version_info.minor}",
    "hob-node": "nodejs22.x",
}

# What AWS has in its Python runtimes, and what hob leaves to layers.
BOTO = "boto3 botocore dateutil jmespath s3transfer six.py urllib3".split()

_hob = _clients = _functions = None
_servers = []

# Logs of servers that did not end well, or that logged an error.
ended_badly = []


def use(hob, clients, functions):
    """Says where the binary, the installed clients and the sources of functions are."""
    global _hob, _clients, _functions
    _hob, _clients, _functions = hob, clients, functions


def eventually(what, look):
    """Waits until look() finds something."""
    end = time.monotonic() + SOON
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain: {what}")
        time.sleep(0.01)


def site_packages():
    """Where the Python clients are."""
    return sysconfig.get_path("purelib")


def arn(name):
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def environment(endpoint, key=KEY):
    """What a person sets to reach a server with the AWS tools."""
    return {
        "PATH": f"{_clients}/python/bin:/usr/local/bin:/usr/bin:/bin",
        "AWS_ACCESS_KEY_ID": key[0],
        "AWS_SECRET_ACCESS_KEY": key[1],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_LAMBDA": endpoint,
        # No settings of the machine's own user.
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
    }


class Server:
    """One hob process and its functions; functions first, then start()."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="hob-conformance-"))
        (self.root / "functions").mkdir()
        self.process = None
        self.endpoint = None
        self.client = None
        self.interpreters = self._interpreters()
        _servers.append(self)

    def function(
        self,
        client,
        name=None,
        handler=None,
        variables=None,
        source=None,
        runtime=None,
        **settings,
    ):
        """A function that runs on this client; its code is that of all tests, or in `source`."""
        folder = self.root / "functions" / (name or client)
        shutil.copytree(source or _functions / client.removeprefix("hob-"), folder)
        if client == "rust":
            (folder / "bootstrap").symlink_to(_clients / "rust/debug/bootstrap")
        runtime = runtime or BUNDLED.get(client, "provided.al2023")
        settings = {"timeout_s": 20, "memory_mb": 256, **settings}
        # What workers leave behind when they are killed goes with the server's folder.
        own = {"CLIENTS": str(_clients), "TMPDIR": str(self.root)}
        variables = {**own, **(variables or {})}
        url = settings.pop("url", None)
        lines = [
            f'runtime = "{runtime}"',
            f'handler = "{handler or HANDLERS[client][0]}"',
            *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
            "[environment]",
            *(f"{key} = {json.dumps(value)}" for key, value in variables.items()),
            # Either may lie below /tmp, where a worker has a directory of its own.
            "[sandbox]",
            f"read = [{json.dumps(str(_clients))}]",
            f"write = [{json.dumps(str(self.root))}]",
        ]
        if url:
            lines += ["[url]", f'auth = "{url}"']
        (folder / "function.toml").write_text("\n".join(lines) + "\n")

    def boto_layer(self):
        """A layer with boto3, made once: for `layers`."""
        folder = self.root / "boto" / "python"
        if not folder.exists():
            folder.mkdir(parents=True)
            for name in BOTO:
                (folder / name).symlink_to(pathlib.Path(site_packages()) / name)
        return ["../../boto"]

    def _interpreters(self):
        """A place for the server's PATH: the interpreters of the clients, by the names that hob
        looks for. One that the system has goes first."""
        place = self.root / "interpreters"
        place.mkdir()
        (place / BUNDLED["hob-python"]).symlink_to(os.path.realpath(sys.executable))
        for name in ["node22", "node24"]:
            # One link: what another one leads through may lie below a /tmp that workers do not see.
            (place / name).symlink_to((_clients / "node/bin/node").resolve())
        return place

    def layer(self, extension):
        """A layer with this extension; where it is."""
        place = self.root / "layers" / extension
        (place / "extensions").mkdir(parents=True)
        (place / "extensions" / extension).symlink_to(_clients / "rust/debug" / extension)
        return place

    def start(self, *arguments):
        command = [_hob, "serve", self.root / "functions", "--listen", "127.0.0.1:0"]
        command += ["--data", self.root / "data", "--socket", self.root / "hob.sock"]
        command += ["--region", REGION, "--account", ACCOUNT, *arguments]
        with open(self.root / "log", "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Workers must not see what only the server was told.
                env={
                    "PATH": f"{self.interpreters}:{os.environ['PATH']}",
                    "OF_THE_SERVER": "secret",
                },
            )
        self.endpoint = eventually("the server is ready", self._ready)
        self.client = self.boto()
        return self

    def _ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.root / "hob.sock"))
            connection.request("GET", "/hob/server")
            answer = json.load(connection.getresponse())
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            return None
        finally:
            connection.close()
        return None if answer["loading"] else answer["url"]

    def boto(self, retries=0, key=KEY, region=REGION, **settings):
        """A boto3 client as anybody makes one, but without the tries again that hide errors."""
        retries = {"max_attempts": retries, "mode": "standard"}
        return boto3.client(
            "lambda",
            endpoint_url=self.endpoint,
            region_name=region,
            aws_access_key_id=key[0],
            aws_secret_access_key=key[1],
            config=botocore.config.Config(retries=retries, max_pool_connections=32, **settings),
        )

    def invoke(self, name, event=None, **more):
        """One invocation; its reply with the payload read."""
        if event is not None:
            more["Payload"] = compact(event)
        reply = self.client.invoke(FunctionName=name, **more)
        reply["Payload"] = reply["Payload"].read()
        reply["RequestId"] = reply["ResponseMetadata"]["RequestId"]
        return reply

    def accepted(self, name, event):
        """As invoke, at a server that refuses until the last worker is back."""

        def unless_throttled():
            try:
                return self.invoke(name, event)
            except self.client.exceptions.TooManyRequestsException:
                return None

        return eventually(f"{name} is not throttled any more", unless_throttled)

    def log(self):
        return (self.root / "log").read_text(errors="replace")

    def has_paths(self):
        """True if workers find their code and layers where AWS has them."""
        return "paths of workers: as on AWS" in self.log()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(SOON)

    def stop(self):
        """Ends it, unless it has ended, and looks whether all was well."""
        _servers.remove(self)
        if self.process is not None:
            try:
                if self.process.poll() is None:
                    self.terminate()
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self.process.returncode != 0 or " error " in self.log():
                ended_badly.append(self.log())
                print(f"--- log of a server that ended with {self.process.returncode}")
                print(self.log())
        shutil.rmtree(self.root, ignore_errors=True)


def stop_all():
    """Ends every server that still runs."""
    for server in list(_servers):
        server.stop()


atexit.register(stop_all)


def compact(event):
    """JSON without blanks, in UTF-8."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
