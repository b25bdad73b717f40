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
        return json.loads(content)

    for name in names:
        path = f"/2015-03-31/functions/{name}/invocations"
        for _ in range(WARM_UP):
            ask("POST", path, '{"n":1}')
        (worker,) = [one for one in ask("GET", "/hob/workers") if one["function"] == name]
        before = run_ns(server), run_ns(worker["pid"])
        for _ in range(ROUNDS):
            ask("POST", path, '{"n":1}')
        after = run_ns(server), run_ns(worker["pid"])
        own, its = (round((now - then) / ROUNDS) for then, now in zip(before, after))
        print(f"  {name + ', warm: instructions':<42} server {own}, worker {its}")


main(int(sys.argv[1]), sys.argv[2:])
