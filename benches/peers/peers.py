"""hob beside its peers, all of them up and measured in turns: peers.py HOB BIN [small|readme] [NAME...]

Medians; ratios between rows of one run are worth more than the figures. A row is compared with
rows whose workers are written in the same language only. All of them, and who asks them, share one
core: what it takes to wake another one would be half of what is measured.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import systems
from talk import Client

CAP, LIMIT = 8, 30
# Where all of it runs, and where the load comes from.
CORES = sorted(os.sched_getaffinity(0))
ROOT = pathlib.Path(__file__).parents[2]
# Milliseconds between cold starts that follow each other.
REST_MS = 10
# Seconds until idle workers go, where cold starts are wanted, and where not.
COLD_IDLE, WARM_IDLE = 1, 600


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes():
    """Every process that is no zombie: its parent."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(pid)] = int(parent)
    return found


def command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def memory(pid):
    """KiB of a process: (resident, its part of what is shared)."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    return tuple(int(re.search(rf"^{key}: +(\d+)", text, re.M)[1]) for key in ("Rss", "Pss"))


class Running:
    """A system that is up."""

    def __init__(self, system, hob, binaries, idle, cap=CAP, limit=LIMIT):
        self.system, self.port = system, free_port()
        self.scratch = tempfile.TemporaryDirectory(prefix="peers-")
        # Some of them become other users.
        os.chmod(self.scratch.name, 0o777)
        # A zygote goes when nobody wants a worker: there a worker is for one event, to start cold.
        once = system.zygote and idle == COLD_IDLE
        self.words = {
            "DIR": self.scratch.name,
            "PORT": self.port,
            "BIN": binaries,
            "HOB": hob,
            "CAP": cap,
            "IDLE": WARM_IDLE if once else idle,
            "ONCE": int(once),
            "LIMIT": limit,
        }
        place = pathlib.Path(self.scratch.name)
        for name, text in system.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(self.fill(text))
        for name, target in system.links.items():
            (place / name).symlink_to(self.fill(target))
        with open(place / "log", "wb") as log:
            self.roots = [
                subprocess.Popen(
                    [self.fill(word) for word in line],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=place,
                    start_new_session=True,
                )
                for line in system.start
            ]
        self.wait_ready()

    def fill(self, text):
        return re.sub(r"@(\w+)@", lambda found: str(self.words[found[1]]), text)

    def client(self, timeout=20):
        return Client(self.port, self.system.path, timeout)

    def timed(self, count, keep, pause_ms=0):
        """Microseconds of each of so many exchanges, with pauses between them."""
        keep = ["keep"] if keep and self.system.keeps else []
        client = [f"{self.words['BIN']}/client", str(self.port), self.system.path]
        line = [*client, str(count), str(pause_ms), *keep]
        told = subprocess.run(line, capture_output=True, text=True)
        if told.returncode != 0:
            raise RuntimeError(f"{self.system.name}: {told.stderr}")
        return [float(time) for time in told.stdout.split()]

    def wait_ready(self):
        until = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    return client.check()
            except (OSError, RuntimeError) as error:
                if time.monotonic() > until:
                    log = pathlib.Path(self.scratch.name, "log").read_text(errors="replace")
                    self.stop()
                    raise RuntimeError(f"{self.system.name} does not answer: {error}\n{log}")
            time.sleep(0.01)

    def tree(self):
        """All its processes."""
        parents = processes()
        found = {root.pid for root in self.roots if root.pid in parents}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def workers(self):
        if self.system.zygote:
            line = [self.words["HOB"], "ps", "--json", "--socket", f"{self.scratch.name}/sock"]
            told = subprocess.run(line, capture_output=True, check=True).stdout
            return {worker["pid"] for worker in json.loads(told)}
        return {pid for pid in self.tree() if re.search(self.system.worker, command(pid))}

    def go_cold(self):
        """Waits until it has no worker; false if that does not come to be."""
        until = time.monotonic() + 15
        while self.workers():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def stop(self):
        rest = self.tree()
        for root in self.roots:
            root.send_signal(signal.SIGTERM)
        until = time.monotonic() + 5
        while any(root.poll() is None for root in self.roots) and time.monotonic() < until:
            time.sleep(0.02)
        for pid in rest | self.tree():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for root in self.roots:
            root.wait()
        self.scratch.cleanup()


class Everybody:
    """All systems, up at the same time."""

    def __init__(self, chosen, hob, binaries, idle):
        self.all = []
        try:
            for system in chosen:
                self.all.append(Running(system, hob, binaries, idle))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.all:
            one.stop()

    def turns(self, rounds):
        """Each of them in turn, in another order each time."""
        for number in range(rounds):
            at = number % len(self.all)
            yield from self.all[at:] + self.all[:at]


def measure_cold(found, everybody, rounds):
    """First answer of a system without a worker, and its memory before. Where each request has a
    worker of its own, answers that follow each other, hob's zygotes' on one connection; what was
    before has ended by then, and a spare is made."""
    for one in everybody.turns(rounds):
        if one.system.cold == "never" or not one.go_cold():
            continue
        row = found[one.system.name]
        idle = [memory(pid) for pid in one.tree()]
        row.setdefault("rss", []).append(sum(rss for rss, _ in idle))
        row.setdefault("pss", []).append(sum(pss for _, pss in idle))
        each = one.system.zygote or one.system.cold == "always"
        times = one.timed(4 if each else 1, one.system.zygote, REST_MS)
        # The first one of several comes to caches that others have filled, or to a new connection.
        row.setdefault("cold", []).extend(times[1:] or times)


def measure_warm(found, everybody, rounds, count):
    """An exchange on a kept connection, or a new one where none is kept; and a worker's memory."""
    for one in everybody.turns(rounds):
        row = found[one.system.name]
        times = sorted(one.timed(count, True))
        row.setdefault("warm", []).append(times[len(times) // 2])
        row.setdefault("late", []).append(times[len(times) * 99 // 100])


def measure_rate(found, everybody, rounds, seconds):
    """Exchanges a second of eight clients, by wrk; those that failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("wrk.method = 'POST'\nwrk.body = '{\"n\":1,\"text\":\"hello\"}'\n")
        script.flush()
        for one in everybody.turns(rounds):
            close = [] if one.system.keeps else ["-H", "Connection: close"]
            url = f"http://127.0.0.1:{one.port}{one.system.path}"
            line = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", script.name, *close, url]
            elsewhere = lambda: os.sched_setaffinity(0, CORES[-1:])
            told = subprocess.run(
                line, capture_output=True, text=True, check=True, preexec_fn=elsewhere
            ).stdout
            row = found[one.system.name]
            row.setdefault("rate", []).append(float(re.search(r"Requests/sec: +([\d.]+)", told)[1]))
            bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
            row["bad"] = row.get("bad", 0) + int(bad[1] if bad else 0)


def answer(one, event, told, timeout=12):
    begin = time.monotonic()
    try:
        with one.client(timeout=timeout) as client:
            status, body = client.ask(event)
            good = status == 200 and b'"added"' in body
            word = "ok" if good else str(status)
            if status == 200 and not good and b"rror" in body:
                word = "200 with an error"
    except TimeoutError:
        word = "no answer"
    except (OSError, ConnectionError, ValueError):
        word = "cut off"
    told.append((word, time.monotonic() - begin))


def at_once(one, count, event):
    told = []
    threads = [threading.Thread(target=answer, args=(one, event, told, 20)) for _ in range(count)]
    for thread in threads:
        thread.start()
    return told, threads


def words(told):
    counted = {}
    for word, _ in told:
        counted[word] = counted.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in sorted(counted.items()))


def behaviour(system, hob, binaries):
    """What happens over the cap, at a crash, at a hang, when idle, and at SIGTERM in flight."""
    row = {}
    one = Running(system, hob, binaries, idle=2, cap=4, limit=3)
    try:
        told, threads = at_once(one, 12, b'{"do":"wait","ms":500}')
        most = 0
        while any(thread.is_alive() for thread in threads):
            most = max(most, len(one.workers()))
            time.sleep(0.02)
        row["12 at once, 4 allowed"] = f"{words(told)}; {most} workers"
        row["idle"] = "none left" if one.go_cold() else f"{len(one.workers())} stay"
        told = []
        answer(one, b'{"do":"crash"}', told)
        answer(one, b"{}" if one.system.kind != "PHP" else b'{"n":1}', told)
        row["crash; the next one"] = "; ".join(word for word, _ in told)
        told = []
        answer(one, b'{"do":"hang"}', told)
        time.sleep(1)
        after = []
        answer(one, b'{"n":1}', after)
        row["hang, 3 s allowed"] = f"{told[0][0]} after {told[0][1]:.0f} s; next {after[0][0]}"
        told, threads = at_once(one, 1, b'{"do":"wait","ms":1500}')
        time.sleep(0.5)
        tree = one.tree()
        one.roots[0].send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        until = time.monotonic() + 5
        while one.roots[0].poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        others = {root.pid for root in one.roots[1:]}
        rest = (tree & set(processes())) - others
        row["SIGTERM in flight"] = f"{told[0][0]}; {len(rest)} processes left"
    finally:
        one.stop()
    return row


COLUMNS = [
    ("idle, RSS / PSS KiB", lambda row: f"{middle(row, 'rss'):.0f} / {middle(row, 'pss'):.0f}" if "rss" in row else "-"),
    ("cold, ms", lambda row: f"{middle(row, 'cold') / 1000:.2f}" if "cold" in row else "never cold"),
    ("warm, us p50 / p99", lambda row: f"{middle(row, 'warm'):.0f} / {middle(row, 'late'):.0f}"),
    ("8 clients, 1/s", lambda row: f"{middle(row, 'rate'):.0f}" + (f" ({row['bad']} failed)" if row["bad"] else "")),
]


def middle(row, key):
    return statistics.median(row[key])


def table(heading, rows):
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def winners(found, chosen):
    """hob's best beside the best of the others, among those whose workers are of one kind."""
    rows = []
    for kinds, name in ((("C", "Rust"), "compiled workers"), (("Python", "PHP"), "Python and PHP workers")):
        for key, what, best in (
            ("rss", "memory when idle, KiB", min),
            ("cold", "cold start, ms", min),
            ("warm", "warm exchange, us", min),
            ("rate", "exchanges a second, 8 clients", max),
        ):
            firsts = []
            for ours in (True, False):
                of = [s.name for s in chosen if s.kind in kinds and s.name.startswith("hob") == ours]
                there = {name: middle(found[name], key) for name in of if key in found[name]}
                if there:
                    first = best(there, key=there.get)
                    firsts.append((first, there[first] / (1000 if key == "cold" else 1)))
            if len(firsts) == 2:
                ratio = firsts[0][1] / firsts[1][1]
                cells = [f"{value:.2f} ({first})" if key == "cold" else f"{value:.0f} ({first})" for first, value in firsts]
                rows.append([f"{what}, {name}", *cells, f"{ratio:.2f} x"])
    return table(["", "hob", "best of the others", "hob beside it"], rows)


def into_readme(text):
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split("<!-- peers -->\n")
    _, after = rest.split("<!-- /peers -->")
    output = lambda *line: subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    where = f"{os.uname().machine}, Linux {os.uname().release.split('-')[0]}, {os.cpu_count()} cores"
    commit = output("git", "rev-parse", "--short", "HEAD")
    note = f"\n\nMeasured {time.strftime('%Y-%m-%d')} at {commit} on {where}.\n"
    readme.write_text(f"{before}<!-- peers -->\n{text}{note}<!-- /peers -->{after}")


def main():
    hob, built, *rest = sys.argv[1:]
    # Where every user may look.
    with tempfile.TemporaryDirectory(prefix="peers-bin-") as binaries:
        shutil.copytree(built, binaries, dirs_exist_ok=True)
        os.chmod(binaries, 0o755)
        compare(hob, binaries, rest)


def compare(hob, binaries, rest):
    small = "small" in rest
    names = [name for name in rest if name not in ("small", "readme")]
    os.sched_setaffinity(0, CORES[:1])
    every = systems.PEERS + systems.HOB
    chosen = [system for system in every if not names or any(name in system.name for name in names)]
    found = {system.name: {} for system in chosen}
    with Everybody(chosen, hob, binaries, idle=COLD_IDLE) as everybody:
        measure_cold(found, everybody, 2 if small else 15)
    with Everybody(chosen, hob, binaries, idle=WARM_IDLE) as everybody:
        measure_warm(found, everybody, 2 if small else 6, 50 if small else 1000)
        measure_rate(found, everybody, 1 if small else 3, 1 if small else 2)
    heading = ["", "workers", *(name for name, _ in COLUMNS)]
    rows = [[s.name, s.kind, *(show(found[s.name]) for _, show in COLUMNS)] for s in chosen]
    told = [winners(found, chosen), table(heading, rows)]
    print("\n\n".join(told) + "\n", flush=True)
    kinds = {system.name: behaviour(system, hob, binaries) for system in chosen}
    heading = list(next(iter(kinds.values())))
    told.append(table(["", *heading], [[name, *(row[key] for key in heading)] for name, row in kinds.items()]))
    print(told[-1])
    if "readme" in rest:
        into_readme("\n\n".join(told))


if __name__ == "__main__":
    main()
