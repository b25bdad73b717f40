"""Nanoseconds of processor time that a server and its worker take for a warm invocation: count.py PID NAME..."""

import http.client
import json
import sys

WARM_UP = 50
ROUNDS = 500


def run_ns(pid):
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0])


def main(server, names):
    connection = http.client.HTTPConnection("127.0.0.1", 4620, timeout=300)

    def ask(method, path, body=None):
        connection.request(method, path, body)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200 or reply.getheader("x-amz-function-error"):
            sys.exit(f"FAILED: {path}: {reply.status} {content}")
        return content

    def count(what, pids, *request):
        for _ in range(WARM_UP):
            ask(*request)
        pids = [server, *pids()]
        before = [run_ns(pid) for pid in pids]
        for _ in range(ROUNDS):
            ask(*request)
        each = [round((run_ns(pid) - ns) / ROUNDS) for pid, ns in zip(pids, before)]
        print(f"  {what:<42} server {each[0]}" + "".join(f", worker {ns}" for ns in each[1:]))

    count("a reply without a worker: instructions", lambda: [], "GET", "/healthz")
    for name in names:

        def workers():
            all_of_them = json.loads(ask("GET", "/hob/workers"))
            return [one["pid"] for one in all_of_them if one["function"] == name]

        path = f"/2015-03-31/functions/{name}/invocations"
        count(f"{name}, warm: instructions", workers, "POST", path, '{"n":1}')


main(int(sys.argv[1]), sys.argv[2:])
