"""The task registry, through HTTP: its services as they are shipped, with an empty folder in each round."""
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from glob import glob
from pathlib import Path

from measure import MIB, Failed, Memory, calls, cpu_seconds_of, install_peer, run, services

ROUNDS = 5  # each with the durable work of some 10,000 tasks, several times
PEER_ROUNDS = 2  # pg-boss takes a minute
TASKS = 10_000  # what one submission takes
MANY = 1_000_000
PEERS = {"graphile-worker": ("graphile", "graphile-worker@0.16.6"),  # the newest for Node.js 20
         "pg-boss": ("pgboss", "pg-boss@10.4.2")}
SYNCS = "fsync,fdatasync"


class Registry:
    def __init__(self, build, pid, port):
        self.build, self.pid, self.port = build, pid, port

    def call(self, method, path, body=None):
        """The answer's bytes, and the seconds that it took."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.connect()
        text = None if body is None else json.dumps(body)
        begin = time.perf_counter()
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        got = answer.read()
        seconds = time.perf_counter() - begin
        connection.close()
        if answer.status not in (200, 201):
            raise Failed(f"{method} {path}: {answer.status} {got[:1000]}")
        return got, seconds

    def submit(self, spec="bench", dependencies=lambda number: [], count=TASKS):
        tasks = [{"id": str(number), "title": "one of many", "dependencies": dependencies(number)}
                 for number in range(1, count + 1)]
        self.call("POST", "/tasksets", {"spec_name": spec, "tasks": tasks})

    def load(self, *words):
        """What registry_load told, with the CPU of the service a task."""
        before = cpu_seconds_of(self.pid)
        told = calls([self.build / "bin/registry_load", words[0], self.port, *words[1:]])
        if told["tasks"] == 0:
            raise Failed("no task was ready")
        told["service_us"] = (cpu_seconds_of(self.pid) - before) / told["tasks"] * 1e6
        return told


@contextmanager
def registry(build, work, under=()):
    with tempfile.TemporaryDirectory(dir=work) as folder:
        with services(build, Path(folder), "--only", "registry", under=under) as (process, port):
            yield Registry(build, process.pid, port)


@contextmanager
def counted_syncs(build, work):
    """The registry, and a function that counts its syncs until then. Tracing slows it: nothing else is measured."""
    if not shutil.which("strace"):
        raise Failed("strace is missing, which counts the syncs (Debian: apt-get install strace)")
    trace = work / "trace"
    command = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={SYNCS}", "-o", trace]
    with registry(build, work, under=command) as traced:
        yield traced, lambda: sum("sync(" in line for line in trace.read_text().splitlines())


def rate(result):
    return result["tasks"] / result["wall_seconds"]


def middle(results, figure):
    return statistics.median(map(figure, results))


def drained(build, work, *words, dependencies=lambda number: []):
    """What a load of the task of one submission came to, in a registry of its own."""
    with registry(build, work) as one:
        one.submit(dependencies=dependencies)
        return one.load("drain", *words)


def floor(build, work, clients, tasks, *how):
    with tempfile.TemporaryDirectory(dir=work) as folder:
        return calls([build / "bin/floor_sqlite", folder, clients, tasks, *how])


def bench_registry(report, build, work):
    bench_rates(report, build, work)
    bench_one_client(report, build, work)
    bench_syncs(report, build, work)
    bench_dependencies(report, build, work)
    bench_pickup(report, build, work)
    bench_many(report, build, work)


def bench_rates(report, build, work):
    peer = install_peer(work, "queue_peer.mjs", *(package for _, package in PEERS.values()))
    ways = ("separate", "fused")
    rounds = []
    with postgres() as connect:
        for number in range(ROUNDS):
            result = {way: drained(build, work, 64, TASKS, way) for way in ways}
            result["the floor"] = floor(build, work, 64, TASKS)
            result["the floor with 64 threads"] = floor(build, work, 64, TASKS, "threads")
            if number < PEER_ROUNDS:
                for name, (kind, _) in PEERS.items():
                    result[name] = calls(["node", peer, kind, connect(), TASKS, 64])
            rounds.append(result)

    def line(way, other, limit):
        both = [r for r in rounds if other in r]
        ratio = middle(both, lambda r: rate(r[way]) / rate(r[other]))
        own_rate, other_rate = (middle(both, lambda r, name=name: rate(r[name])) for name in (way, other))
        report.line("registry", f"64 clients, {way} calls ÷ {other}", ratio, limit, "×",
                    f"{own_rate:.0f} against {other_rate:.0f} tasks/s", at_least=True)

    for way in ways:
        line(way, "the floor", 0.3 if way == "separate" else None)
        line(way, "the floor with 64 threads", None)
        for other in PEERS:
            line(way, other, 3 if way == "separate" else None)
    for way in ways:
        p50, p99, load_us = (middle(rounds, figure) for figure in (
            lambda r: r[way]["p50_ms"], lambda r: r[way]["p99_ms"],
            lambda r: r[way]["cpu_seconds"] / r[way]["tasks"] * 1e6))
        floor_us = middle(rounds, lambda r: r["the floor"]["cpu_seconds"] / r["the floor"]["tasks"] * 1e6)
        report.line("registry", f"CPU of the service a task, 64 clients, {way} calls",
                    min(r[way]["service_us"] for r in rounds), 100, "µs",
                    f"the floor {floor_us:.0f} µs, the load {load_us:.0f} µs; a call p50 {p50:.1f}, p99 {p99:.1f} ms")


def bench_one_client(report, build, work):
    tasks = TASKS // 5
    for way in ("separate", "fused"):
        pairs = [(drained(build, work, 1, tasks, way), floor(build, work, 1, tasks)) for _ in range(3)]
        ratio = middle(pairs, lambda pair: rate(pair[0]) / rate(pair[1]))
        report.line("registry", f"one client, {way} calls ÷ the floor", ratio, None, "×",
                    f"{middle(pairs, lambda pair: rate(pair[0])):.0f} tasks/s; a call p50 "
                    f"{middle(pairs, lambda pair: pair[0]['p50_ms']):.2f} ms, the service "
                    f"{middle(pairs, lambda pair: pair[0]['service_us']):.0f} µs CPU a task")


def bench_syncs(report, build, work):
    for clients, tasks, limits in ((1, 1000, (0.45, 0.9)), (64, TASKS, (None, None))):
        for way, limit in zip(("separate", "fused"), limits):
            with counted_syncs(build, work) as (traced, syncs):
                traced.submit()
                before = syncs()
                traced.load("drain", clients, tasks, way)
                count = syncs() - before
            who = "one client" if clients == 1 else f"{clients} clients"
            report.line("registry", f"tasks a sync, {who}, {way} calls", tasks / count, limit, "",
                        f"{count} syncs for {tasks} tasks", at_least=True)


def bench_dependencies(report, build, work):
    """In rows of 100: none; each after the one above it; each after three of the row above it."""
    def chain(number):
        return [str(number - 100)] if number > 100 else []

    def mesh(number):
        row = (number - 1) // 100 * 100 - 99
        return [str(row + (number + step) % 100) for step in (0, 7, 31)] if number > 100 else []

    rounds = [[drained(build, work, 64, TASKS, "separate", dependencies=shape)
               for shape in (lambda number: [], chain, mesh)] for _ in range(3)]
    for index, shape in ((1, "chains"), (2, "three dependencies each")):
        ratio = middle(rounds, lambda r, i=index: r[i]["service_us"] / r[0]["service_us"])
        report.line("registry", f"CPU a task in {shape} ÷ without", ratio, 2, "×",
                    f"{middle(rounds, lambda r, i=index: r[i]['service_us']):.0f} µs")


def bench_pickup(report, build, work):
    with registry(build, work) as one:
        rounds = [one.load("pickup", 300) for _ in range(ROUNDS)]
    for share, limit in (("p50_ms", 3), ("p99_ms", 20)):
        late = min(r["acknowledged_p99_ms"] for r in rounds)
        report.line("registry", f"an idle claim gets a new task: {share[:3]}", min(r[share] for r in rounds), limit, "ms",
                    f"from the submission on; from its answer on: p99 {late:.2f} ms")


def bench_many(report, build, work):
    with ExitStack() as stack:
        single, few, many = (stack.enter_context(registry(build, work)) for _ in range(3))
        single.submit()
        specs = MANY // TASKS
        for number in range(specs):  # as many tasksets as there are below, as a claim goes to the one that runs least
            few.submit(f"bench-{number}", count=TASKS // specs)
        memory = Memory(build / "bin/necrocode", [many.pid], every=0.02)
        begin = time.perf_counter()
        try:
            for number in range(specs):
                many.submit(f"bench-{number}")
            report.line("registry", f"loading {MANY:,} tasks, {TASKS:,} a call", time.perf_counter() - begin, None, "s",
                        f"{cpu_seconds_of(many.pid):.0f} s CPU of the service")
            bench_claims(report, single, few, many, specs)
            bench_pages(report, many)
        finally:
            peak = memory.stop()
    report.line("registry", f"peak memory, {MANY:,} tasks", peak, 100 * 1e6 / 2**20, "MiB",
                "PSS while they are loaded, claimed and listed")


def bench_claims(report, single, few, many, specs):
    for clients in (64, 1):
        rounds = [[one.load("drain", clients, 600, "claim")["service_us"] for one in (many, few, single)]
                  for _ in range(7)]
        who = "one client" if clients == 1 else f"{clients} clients"
        for what, index, limit in ((f"{MANY:,} waiting ÷ {TASKS:,}, {specs} tasksets each", 1, 1.3),
                                   (f"{MANY:,} in {specs} tasksets ÷ {TASKS:,} in one", 2, None)):
            ratio = middle(rounds, lambda r, i=index: r[0] / r[i])
            report.line("registry", f"CPU of a claim, {what}, {who}", ratio, limit, "×",
                        f"{middle(rounds, lambda r: r[0]):.0f} against "
                        f"{middle(rounds, lambda r, i=index: r[i]):.0f} µs")


def bench_pages(report, many):
    many.load("drain", 64, 100, "separate")
    last = MANY - 1000
    pages = (("the first 1,000 events", "/events?limit=1000", 50),
             (f"1,000 events of {MANY:,}, near the end", f"/events?limit=1000&after={last}", 50),
             ("events of one type, all near the end", "/events?type=TaskCompleted&limit=1000", None),
             ("failed tasks, of which there are none", "/tasks?state=failed", None),
             ("100 ready tasks", "/tasks?state=ready&limit=100", None),
             ("100 tasks by priority", "/tasks?sort=priority&limit=100", None),
             ("tasks with a word that none has", "/tasks?q=nowhere", None))
    for what, path, limit in pages:
        best = min(many.call("GET", path)[1] for _ in range(5)) * 1000
        report.line("registry", f"a page: {what}", best, limit, "ms", path)


@contextmanager
def postgres():
    """A PostgreSQL with Debian's defaults in a folder of its own; gives the address of a new database."""
    found = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not found:
        raise Failed("PostgreSQL is missing, on which the peers run (Debian: apt-get install postgresql)")
    # It refuses to be root.
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # a socket's path has 107 characters
        if as_nobody:
            shutil.chown(folder, "nobody", "nogroup")
        data, log = Path(folder) / "data", Path(folder) / "log"
        run([*as_nobody, f"{found[-1]}/initdb", "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C"],
            cwd=folder)
        with open(log, "w", encoding="utf-8") as told:
            process = subprocess.Popen([*as_nobody, f"{found[-1]}/postgres", "-D", str(data), "-k", folder,
                                        "-c", "listen_addresses="], stdout=told, stderr=told, cwd=folder)
        try:
            yield postgres_databases(found[-1], folder, process, log)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def postgres_databases(programs, folder, process, log):
    for _ in range(200):
        ready = subprocess.run([f"{programs}/pg_isready", "-q", "-h", folder], check=False)
        if ready.returncode == 0:
            break
        if process.poll() is not None:
            raise Failed(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
    count = 0

    def connect():
        nonlocal count
        count += 1
        run([f"{programs}/createdb", "-h", folder, "-U", "bench", f"bench{count}"])
        return f"socket://bench@{folder}?db=bench{count}"
    return connect
