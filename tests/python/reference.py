"""AWS's own runtime client, run on the same function: what our replies are compared with.

A small Runtime API serves it. Its compiled half is there for one Python only; for the others a few
lines take that half's place, and everything that a function can see is Python anyway.
"""

import glob
import http.server
import os
import subprocess
import sys
import tempfile
import threading

import host

CLIENTS = os.environ.get("CLIENTS")

_STAND_IN = '''
import http.client, os

def _call(method, path, body=None, kind=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2018-06-01/runtime" + path, body, {"Content-Type": kind or ""})
    reply = connection.getresponse()
    return reply.read(), reply.headers

def initialize_client(agent):
    pass

def next():
    body, headers = _call("GET", "/invocation/next")
    names = {name: value for name, value in headers.items()}
    deadline = int(names["Lambda-Runtime-Deadline-Ms"])
    return body, {**names, "Lambda-Runtime-Deadline-Ms": deadline}

def post_invocation_result(request, body, kind, invocation=None):
    _call("POST", "/invocation/%s/response" % request, body, kind)

def post_error(request, body, fault, invocation=None):
    _call("POST", "/invocation/%s/error" % request, body.encode(), "application/json")
'''


def site_packages():
    found = glob.glob(os.path.join(CLIENTS or "", "lib", "python3*", "site-packages"))
    return found[0] if CLIENTS and found else None


def run(folder, handler, events, variables):
    """What the client does: init error or None, an outcome for each event, log, exit status."""
    state = _State(events)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _answering(state))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with tempfile.TemporaryDirectory() as stand_in:
        places = [site_packages()]
        if not places[0].endswith("python%d.%d/site-packages" % sys.version_info[:2]):
            with open(os.path.join(stand_in, "runtime_client.py"), "w") as file:
                file.write(_STAND_IN)
            places.insert(0, stand_in)
        environment = host.environment(variables)
        environment["AWS_LAMBDA_RUNTIME_API"] = "127.0.0.1:%d" % server.server_port
        environment["PYTHONPATH"] = ":".join(places)
        environment["LAMBDA_TASK_ROOT"] = folder
        process = subprocess.Popen(
            [sys.executable, "-u", "-B", "-m", "awslambdaric", handler],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )
        # It ends by itself, or is ended once it asks for more than there is.
        threading.Thread(target=state.end, args=(process,), daemon=True).start()
        log = process.communicate(timeout=host.LIMIT_S)[0]
    server.shutdown()
    server.server_close()
    status = None if state.idle.is_set() else process.returncode
    return state.init, state.outcomes, log, status


class _State:
    def __init__(self, events):
        self.events = list(events)
        self.outcomes = []
        self.init = None
        self.idle = threading.Event()

    def end(self, process):
        if self.idle.wait(host.LIMIT_S):
            process.kill()


def _answering(state):
    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if not state.events:
                state.idle.set()
                self.connection.recv(1)
                return
            event = state.events.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(event.payload)))
            for name, value in (
                ("Aws-Request-Id", event.request_id),
                ("Deadline-Ms", str(event.deadline_ms)),
                ("Invoked-Function-Arn", event.arn),
                ("Trace-Id", event.trace),
                ("Client-Context", event.context),
                ("Cognito-Identity", event.identity),
            ):
                if value:
                    self.send_header("Lambda-Runtime-" + name, value)
            self.end_headers()
            self.wfile.write(event.payload)

        def do_POST(self):
            payload = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("/response"):
                state.outcomes.append(("reply", payload))
            elif self.path.endswith("/init/error"):
                state.init = payload
            else:
                state.outcomes.append(("error", payload))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    return Answering
