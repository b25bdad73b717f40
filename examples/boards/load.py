"""Invokes a function over and over while something else happens to its server.

    load.py PORT FUNCTION

Four clients: two open a connection for each invocation, two keep theirs and open another one when
the server has closed it, as the AWS SDKs do. Runs until standard input ends. Ends with 1 if a single
invocation failed.
"""

import http.client
import select
import sys
import threading
import time

port, function = int(sys.argv[1]), sys.argv[2]
path = f"/2015-03-31/functions/{function}/invocations"
over = threading.Event()
durations, failures = [], []


def closed(connection):
    """Whether the server has closed a connection that nothing is expected on."""
    return connection.sock is None or select.select([connection.sock], [], [], 0)[0] != []


def client(keeps):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not over.is_set():
        if not keeps or closed(connection):
            connection.close()
        started = time.monotonic()
        try:
            connection.request("POST", path, b'{"load": true}')
            reply = connection.getresponse()
            text = reply.read()
            if reply.status != 200 or reply.headers.get("x-amz-function-error"):
                failures.append(f"{reply.status} {text[:200]!r}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{'kept' if keeps else 'new'} connection: {error!r}")
            connection.close()
        durations.append(time.monotonic() - started)


threads = [threading.Thread(target=client, args=(n % 2 == 1,)) for n in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
for failure in failures[:10]:
    print(failure)
slowest = f"the slowest took {max(durations):.1f} s"
print(f"{len(durations)} invocations by 4 clients, {len(failures)} failed; {slowest}")
sys.exit(1 if failures or not durations else 0)
