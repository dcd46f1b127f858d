"""`necrocode run`, the worker, agent programs from npm beside them, and the demo."""
import http.client
import json
import queue
import shlex
import shutil
import statistics
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime

from agents import agents, install, loopback_only
from measure import MIB, ROUNDS, Failed, Memory, run, server, services
from run_bench import (BARE_TEST, FILE, FILE_TEXT, TEST_COMMAND, RunBench, peak_of, script, scripted_model, spend,
                       succeed)

BEST_OF = 5  # where a limit is absolute
FILES, MORE_FILES = 200, 750  # of a repository
MANY = 200  # runs of one worker
PATIENCE = 60  # seconds until what does not come counts as not coming
# How the scripted model behaves, and the exit codes of SPEC section 9.
FAULTS = {"401": 7, "400": 8, "429": 9, "500": 9, "reset": 9, "html": 8, "silence": 9}
FAULT_SECONDS = 20  # what a task whose model fails has
PEER_FAULTS = ("401", "500", "silence")
BARE_SANDBOX = f"bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc --bind \"$2\" \"$2\" {BARE_TEST}"


def bench_runner(report, build, work):
    bench = RunBench(build, work / "own", FILES)
    bench_alone(report, build, bench)
    with scripted_model(work) as model:
        bench_first_request(report, build, work, bench, model)
        bench_prompt(report, build, work, model)
        bench_faults(report, bench, model)
        bench_ten(report, build, work, bench, model)
        bench_many(report, build, work, bench, model)
    bench_agents(report, build, work)
    bench_demo(report, build, bench)


# ---- one run, and some beside each other -------------------------------------------------------


def bench_alone(report, build, bench):
    cassette = bench.work / "cassette.json"
    change = {"code_changes": [{"file_path": FILE, "operation": "create", "content": FILE_TEXT}],
              "explanation": "Adds it."}
    entry = {"times": 0, "answer": {"content": json.dumps(change)}}
    cassette.write_text(json.dumps({"version": 1, "entries": [entry]}))
    with server([build / "bin/necrocode", "llm", "serve-replay", cassette, "--listen", "127.0.0.1:0"]) as url:
        model = url + "/v1"
        bench_one(report, bench, model)
        peak = min(bench.at_once(model, 1)[1] for _ in range(BEST_OF))
        report.line("runner", "peak memory of one run", peak, 15, "MiB", "PSS of runner and supervisor")
        seconds, peaks = zip(*(bench.at_once(model, 10) for _ in range(BEST_OF)))
        report.line("runner", "ten runs at once", min(seconds), 0.5, "s", "ten processes")
        report.line("runner", "peak memory of ten runs at once", min(peaks), 100, "MiB", "PSS, ten processes")


def bench_one(report, bench, model):
    first = bench.own(model)  # finds what is red at the base, and keeps it
    bench.floor()
    tests = [BARE_TEST] + ([BARE_SANDBOX] if shutil.which("bwrap") else [])
    rounds = [[bench.own(model), *(bench.floor(test=test) for test in tests)] for _ in range(ROUNDS)]
    wall, cpu = ([[getattr(spent, what) * 1000 for spent in one] for one in rounds] for what in ("wall", "cpu"))
    line_over(report, "one run − the same git steps in a shell script", wall, 1, 30,
              f"its baseline known; a base's first run {first.wall * 1000:.0f} ms")
    line_over(report, "CPU of one run − the script's", cpu, 1, None, "with all children")
    if len(tests) > 1:
        line_over(report, "one run − the script with its test in a bare bwrap", wall, 2, None)


def line_over(report, what, rounds, other, limit, note=""):
    """Ours before the column `other` of the rounds, in milliseconds."""
    over = statistics.median(one[0] - one[other] for one in rounds)
    ratio = statistics.median(one[0] / one[other] for one in rounds)
    own, base = (statistics.median(one[column] for one in rounds) for column in (0, other))
    words = [f"{own:.0f} ms against {base:.0f} ms; {ratio:.2f}×"] + ([note] if note else [])
    report.line("runner", what, over, limit, "ms", "; ".join(words))


# ---- what is asked of the model ----------------------------------------------------------------


def bench_first_request(report, build, work, bench, model):
    """The model tells when a request has arrived, the run's events when each phase began (cut to milliseconds)."""
    def waited(one):
        asked = model.count()
        events = one.own(model.endpoint()).events
        phases = [event for event in events if event["type"] == "phase"]
        ready = next(after for before, after in zip(phases, phases[1:]) if before["phase"] == "prepare")
        arrived = model.calls(asked)[0]["arrived"]
        return (arrived - datetime.fromisoformat(ready["time"]).timestamp()) * 1000

    large = RunBench(build, work / "large", MORE_FILES)
    waited(large)
    few, more = (min(waited(one) for _ in range(BEST_OF)) for one in (bench, large))
    report.line("runner", "workspace ready to first model request", few, 10, "ms",
                f"{FILES} files, baseline known; {MORE_FILES} files {more:.1f} ms")


def bench_prompt(report, build, work, model):
    """Of a task that says next to nothing, in a repository of one file: all but what is the task's own."""
    one = RunBench(build, work / "small", 1)
    asked = model.count()
    one.own(model.endpoint(), title="T", description="")
    call = model.calls(asked)[0]
    question = json.loads(call["body"])
    prompt = "".join(message["content"] for message in question["messages"])
    own_words = (f"bench:{one.number}", "T\n", TEST_COMMAND, "part0/", "file0.py")
    missing = [words for words in own_words if words not in prompt]
    if missing:
        raise Failed(f"the prompt has not {missing}: {prompt}")
    fixed = len(prompt.encode()) - sum(map(len, own_words))
    schema = len(json.dumps(question["response_format"]))
    report.line("runner", "the fixed part of the prompt", fixed, 2000, "B",
                f"both messages; the schema of the answer, beside them, {schema} B; "
                f"the whole request {call['bytes']} B")


def bench_faults(report, bench, model):
    """All at once: it is about how they end, and by when."""
    commands = [bench.command(model.endpoint(behaviour), "--llm-timeout", 2, timeout_seconds=FAULT_SECONDS)
                for behaviour in FAULTS]
    asked = model.count()
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        ends = dict(zip(FAULTS, pool.map(lambda command: spend(command, bench.env)[1], commands)))
    calls = [call["path"].split("/")[1] for call in model.calls(asked)]
    for behaviour, wanted in FAULTS.items():
        seconds, code = ends[behaviour].wall, ends[behaviour].exit_code
        report.line("runner", f"the model fails: {behaviour}", seconds, FAULT_SECONDS, "s",
                    f"exit code {code}" + ("" if code == wanted else f" instead of {wanted}") +
                    f"; {calls.count(behaviour)} calls", holds=code == wanted and seconds <= FAULT_SECONDS)


# ---- one worker --------------------------------------------------------------------------------


class Worker:
    """A worker beside the services. What it tells is read as it comes, else it would have to wait with it."""

    def __init__(self, process, port, bench):
        self.process, self.port, self.bench = process, port, bench
        self.ended = queue.SimpleQueue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            if json.loads(line)["type"] == "result":
                self.ended.put(None)

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status not in (200, 201):
            raise Failed(f"{method} {path}: {answer.status} {text[:1000]}")
        return json.loads(text)

    def submit(self, spec, count):
        tasks = [self.bench.fields(id=str(number)) for number in range(1, count + 1)]
        self.call("POST", "/tasksets", {"spec_name": spec, "tasks": tasks})

    def await_ends(self, count):
        """Of so many runs, which it tells when the registry knows; not for ever of those that do not come."""
        end = time.perf_counter() + PATIENCE
        with suppress(queue.Empty):
            for _ in range(count):
                self.ended.get(timeout=max(0, end - time.perf_counter()))

    def done_and_pushed(self, spec):
        """How many, by the registry's word, and by the remote's."""
        done = self.call("GET", f"/tasks?spec={spec}&state=done&limit=1000")["items"]
        return len(done), self.bench.branches(f"feature/task-{spec}-*")


@contextmanager
def worker(build, work, bench, endpoint, count, slots=0):
    work.mkdir()
    with services(build, work) as (_, port):
        url = f"http://127.0.0.1:{port}"
        places = ["--registry", url, "--artifacts", url]
        if slots:
            run([bench.binary, "pool", "add", bench.url, "--url", url, "--name", "bench",
                 "--slots", slots, "--max-slots", slots])
            places = ["--url", url]
        command = [bench.binary, "worker", "--json", "--max-parallel", count, "--llm-endpoint", endpoint,
                   "--data", work / "worker", *places]
        with open(work / "worker.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True,
                                       env=bench.env)
        try:
            yield Worker(process, port, bench)
        finally:
            process.terminate()
            process.wait()


def wait_until(what):
    """Whether it came true in time."""
    end = time.perf_counter() + PATIENCE
    while not what():
        if time.perf_counter() > end:
            return False
        time.sleep(0.05)
    return True


def bench_ten(report, build, work, bench, model):
    with worker(build, work / "ten", bench, model.endpoint(), 10, slots=10) as ten:
        def ready():
            return ten.call("GET", "/pools/bench")["counts"]["ready"] == 10

        def wall(number):
            if not wait_until(ready):
                raise Failed("the pool's ten slots do not get ready")
            begin = time.perf_counter()
            ten.submit(f"ten{number}", 10)
            ten.await_ends(10)
            seconds = time.perf_counter() - begin
            if ten.done_and_pushed(f"ten{number}") != (10, 10):
                raise Failed("of ten runs in one worker not all were done")
            return seconds

        best = min(wall(number) for number in range(BEST_OF))
        memory = Memory(None, [ten.process.pid], every=0.01)
        wall(BEST_OF)
        peak = memory.stop()
    report.line("runner", "ten runs at once in one worker", best, 0.5, "s",
                "from submission to the last one's end; registry, warm pool and store beside it")
    report.line("runner", "peak memory of ten runs in one worker", peak, 100, "MiB",
                "PSS of the worker and all that it starts, with git and sandboxes")


def bench_many(report, build, work, bench, model):
    """The model answers nobody until all are waiting, and their memory was read."""
    asked = model.count()
    with worker(build, work / "many", bench, model.endpoint("hold"), MANY) as many:
        memory = Memory(None, [many.process.pid], every=0.05)
        begin = time.perf_counter()
        many.submit("many", MANY)
        all_wait = wait_until(lambda: model.count() - asked == MANY)
        seconds = time.perf_counter() - begin
        waiting = model.count() - asked
        still = memory.now() / MIB
        begin = time.perf_counter()
        urllib.request.urlopen(model.url + "/release", timeout=PATIENCE).close()
        many.await_ends(MANY)
        finish = time.perf_counter() - begin
        peak = memory.stop()
        done, pushed = many.done_and_pushed("many")
    report.line("runner", f"memory while {MANY} runs of one worker wait for the model", still, 120, "MiB",
                f"PSS of the worker and all that it started; {waiting} requests were waiting, {done} runs done, "
                f"{pushed} branches pushed; all its processes at their peak {peak:.0f} MiB",
                holds=still <= 120 and all_wait and done == pushed == MANY)
    report.line("runner", f"{MANY} runs of one worker until all wait for the model", seconds, None, "s",
                f"from the answer to the last one's end {finish:.1f} s")


# ---- agent programs ----------------------------------------------------------------------------


def bench_agents(report, build, work):
    folder = work / "agents"
    with ExitStack() as stack:
        try:
            install(folder)
            inside = stack.enter_context(loopback_only())
        except Failed as why:
            report.line("runner", "agent programs from npm: not measured", 0, None, "", " ".join(str(why).split()))
            return
        model = stack.enter_context(scripted_model(folder, inside))
        bench_same_task(report, RunBench(build, folder / "own", FILES), folder, inside, model)
        bench_agent_faults(report, folder, inside, model)


def bench_same_task(report, bench, folder, inside, model):
    """Ours, and for each agent a script around it that a user would write: same remote, change, test and model."""
    peers = agents(folder, model.endpoint())

    def command_of(peer):
        if peer is None:
            return [*inside, *bench.command(model.endpoint())]
        call = shlex.join(map(str, peer.command))
        return [*inside, *bench.scripted(script(f"timeout {PATIENCE} {call} </dev/null"))]

    def measured(peer):
        asked = model.count()
        spent = succeed(command_of(peer), peer.env if peer else bench.env)
        calls = model.calls(asked)
        return {"wall": spent.wall * 1000, "CPU": spent.cpu * 1000, "calls": len(calls),
                "bytes": sum(call["bytes"] for call in calls)}

    programs = [None, *peers]
    for program in programs:
        measured(program)
    rounds = [[measured(program) for program in programs] for _ in range(ROUNDS)]
    peaks = [min(peak_of(command_of(program), program.env if program else bench.env) for _ in range(3))
             for program in programs]

    for index, peer in enumerate(peers, 1):
        def middle(figure, column=0):
            return statistics.median(figure(one[column]) for one in rounds)

        calls, own_calls = middle(lambda f: f["calls"], index), middle(lambda f: f["calls"])
        for what in ("wall", "CPU"):
            for per, count in (("a task", lambda f: 1), ("a model call", lambda f: f["calls"])):
                def cost(figures):
                    return figures[what] / count(figures)

                ratio = statistics.median(cost(one[index]) / cost(one[0]) for one in rounds)
                report.line("runner", f"{what} of {per}: {peer.name} ÷ ours", ratio, None, "×",
                            f"{middle(cost, index):.0f} ms against {middle(cost):.0f} ms; "
                            f"{calls:.0f} model calls against {own_calls:.0f}")
        report.line("runner", f"peak memory of a task: {peer.name} ÷ ours", peaks[index] / peaks[0], None, "×",
                    f"{peaks[index]:.0f} MiB against {peaks[0]:.0f} MiB; PSS of all processes")
        sent, own_sent = middle(lambda f: f["bytes"], index), middle(lambda f: f["bytes"])
        report.line("runner", f"bytes sent to the model for a task: {peer.name} ÷ ours", sent / own_sent, None, "×",
                    f"{sent:.0f} against {own_sent:.0f} B")


def bench_agent_faults(report, folder, inside, model):
    """All at once, and no longer than is patient."""
    def end(behaviour, peer):
        place = folder / "faults" / f"{peer.name}-{behaviour}"
        place.mkdir(parents=True)
        command = shlex.join(map(str, peer.command))
        text = f"cd {shlex.quote(str(place))} && git init -q && exec timeout {PATIENCE} {command}"
        return spend([*inside, "sh", "-c", text], peer.env)[1]

    cases = [(behaviour, peer) for behaviour in PEER_FAULTS for peer in agents(folder, model.endpoint(behaviour))]
    with ThreadPoolExecutor(len(cases)) as pool:
        ends = list(pool.map(end, *zip(*cases)))
    for name in dict.fromkeys(peer.name for _, peer in cases):
        own = [(behaviour, spent) for (behaviour, peer), spent in zip(cases, ends) if peer.name == name]
        words = [f"{behaviour}: " + ("no end yet" if spent.exit_code == 124 else f"exit code {spent.exit_code}") +
                 f" after {spent.wall:.1f} s" for behaviour, spent in own]
        report.line("runner", f"the model fails: {name}, the longest", max(spent.wall for _, spent in own), None, "s",
                    "; ".join(words))


def bench_demo(report, build, bench):
    begin = time.perf_counter()
    result = json.loads(run([build / "bin/necrocode", "demo", "--json"], env=bench.env))
    seconds = time.perf_counter() - begin
    passed = sum(1 for check in result["checks"] if check["ok"])
    report.line("runner", "the demo", seconds, 45, "s", f"{passed} of {len(result['checks'])} checks, "
                f"{len(result['tasks'])} tasks", holds=bool(result["ok"]) and seconds <= 45)
