"""The metering proxy before a model, against no proxy and against nginx; agent programs under `exec`, side by side."""
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from areas.llm import EVENTS, completion, completion_events
from measure import MIB, ROUNDS, Failed, Memory, calls, cpu_seconds_of, pss_kib, run, server
from run_bench import BARE_TEST, TEST_COMMAND, WRITE, RunBench, scripted_model

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
PRICE = {"input": 2.0, "output": 10.0}
PRICES = {"bench": PRICE}
CALLS, STREAMS = 2000, 40
OPEN_STREAMS = 100
SIDE_BY_SIDE = 40
PATIENCE = 60
NGINX = """daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream model {{ server {model}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {key}";
      proxy_buffering off;
    }}
  }}
}}
"""


def bench_proxy(report, build, work):
    if not shutil.which("nginx"):
        raise Failed("nginx is missing, which the proxy is measured against (Debian: apt-get install nginx-light)")
    files = {"completion": json.dumps(completion()), "events": completion_events(),
             "question": json.dumps(question()), "streamed": json.dumps(question(stream=True)),
             "prices": json.dumps(PRICES)}
    for name, text in files.items():
        (work / name).write_text(text)
    bench_calls(report, build, work)
    bench_streams(report, build, work)
    bench_open_streams(report, build, work)
    bench_cap(report, build, work)
    bench_side_by_side(report, build, work / "exec")


def question(**more):
    if more.get("stream"):
        more["stream_options"] = {"include_usage": True}
    return {"model": "bench", "max_tokens": 4000, "temperature": 0.2,
            "messages": [{"role": "user", "content": "Say what you always say."}]} | more


def cost(usage):
    return (usage["prompt_tokens"] * PRICE["input"] + usage["completion_tokens"] * PRICE["output"]) / 1e6


# ---- the three ways to a model -----------------------------------------------------------------


class Way:
    """Where to ask, with which key, and the process between; none: directly."""

    def __init__(self, endpoint, key, process=None):
        self.endpoint, self.key, self.process = endpoint, key, process

    def command(self, build, count, in_flight, body):
        return [build / "bin/floor_http", f"{self.endpoint}/chat/completions", count, in_flight, body,
                f"Authorization: Bearer {self.key}"]

    def load(self, build, count, in_flight, body):
        """What the calls were like; "between": CPU seconds of the process between, for a call."""
        before = self.process and cpu_seconds_of(self.process.pid)
        result = calls(self.command(build, count, in_flight, body))
        result["between"] = (cpu_seconds_of(self.process.pid) - before) / count if self.process else 0
        return result


def wait_for(what, process):
    end = time.perf_counter() + PATIENCE
    while not what():
        if process.poll() is not None or time.perf_counter() > end:
            raise Failed(f"{process.args[0]} does not get so far")
        time.sleep(0.01)


@contextmanager
def our_proxy(build, work, endpoint, *options):
    """It tells each exchange to a file, as it would in a script."""
    told = work / "exchanges"
    env = os.environ | {"LLM_API_KEY": KEY, "HOME": str(work), "NECROCODE_DATA": str(work / "data")}
    command = [build / "bin/necrocode", "llm", "proxy", "--llm-endpoint", endpoint, "--prices", work / "prices",
               *options]
    with open(told, "w", encoding="utf-8") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, env=env)
    try:
        wait_for(lambda: "\n" in told.read_text(), process)
        ready = json.loads(told.read_text().splitlines()[0])
        yield Way(ready["endpoint"], ready["key"], process)
    finally:
        process.terminate()
        process.wait()


def last_told(work):
    return json.loads((work / "exchanges").read_text().splitlines()[-1])


@contextmanager
def nginx(work, endpoint):
    folder = work / "nginx"
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:  # nginx does not tell which port it took
        port = free.getsockname()[1]
    model, path = endpoint.removeprefix("http://").split("/", 1)
    (folder / "conf").write_text(NGINX.format(folder=folder, model=model, port=port, key=KEY))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "conf")], stderr=subprocess.DEVNULL)

    def listens():
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens, process)
        yield Way(f"http://127.0.0.1:{port}/{path}", "none", process)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def ways(build, work, endpoint):
    with our_proxy(build, work, endpoint) as ours, nginx(work, endpoint) as theirs:
        yield Way(endpoint, KEY), ours, theirs


# ---- latency, CPU and cost ---------------------------------------------------------------------


def in_rounds(build, all_ways, count, in_flight, body):
    """A round for nothing, then what each way was like in each of the others."""
    return [[way.load(build, count, in_flight, body) for way in all_ways] for _ in range(ROUNDS + 1)][1:]


def line_added(report, rounds, what, figure, limit=None):
    """What the way through us, and through nginx, takes longer than the direct one, in milliseconds."""
    for percentile, name in enumerate(("p50", "p99")):
        def added(way):
            return statistics.median((one[way][figure][percentile] - one[0][figure][percentile]) / 1000
                                     for one in rounds)

        direct = statistics.median(one[0][figure][percentile] for one in rounds) / 1000
        report.line("proxy", f"{what}, {name}", added(1), limit if name == "p50" else None, "ms",
                    f"nginx adds {added(2):.3f} ms; directly {direct:.3f} ms")


def line_cpu(report, rounds, what, count):
    """µs of the process between, for each of `count` things in a call; a ratio to nginx."""
    own, other = ([one[way]["between"] / count * 1e6 for one in rounds] for way in (1, 2))
    ratio = statistics.median(a / b for a, b in zip(own, other))
    report.line("proxy", f"CPU of {what}", statistics.median(own), None, "µs",
                f"nginx {statistics.median(other):.2f} µs: {ratio:.1f}×")


def line_cost(report, work, what, usage):
    """Told at the end, against the model's own figures."""
    told = last_told(work)
    real = told["calls"] * cost(usage)
    report.line("proxy", f"cost of {what} − the model's own sum", abs(told["usage"]["cost_usd"] / real - 1) * 100, 1,
                "%", f"${told['usage']['cost_usd']:.4f} of {told['calls']} calls")


def bench_calls(report, build, work):
    with server([build / "bin/static_server", work / "completion", "application/json"]) as url:
        with ways(build, work, url + "/v1") as all_ways:
            one = in_rounds(build, all_ways, CALLS, 1, work / "question")
            many = in_rounds(build, all_ways, CALLS, 16, work / "question")
    line_added(report, one, "added to the first byte of a call", "first_byte_us", 1)
    line_added(report, one, "added to a call", "whole_us")
    line_added(report, many, "added to a call, 16 in flight", "whole_us")
    line_cpu(report, one, "a call", 1)
    line_cpu(report, many, "a call, 16 in flight", 1)
    line_cost(report, work, "whole answers", completion()["usage"])


def bench_streams(report, build, work):
    """The server writes all events at once: the first of a short stream is not behind many others."""
    events = (work / "events").read_text().split("\n\n")
    (work / "few").write_text("\n\n".join(events[:2] + events[-4:]))
    with server([build / "bin/static_server", work / "few", "text/event-stream", "events"]) as url:
        with ways(build, work, url + "/v1") as all_ways:
            few = in_rounds(build, all_ways, CALLS, 1, work / "streamed")
    line_added(report, few, "added to the first event of a stream", "first_byte_us", 1)
    with server([build / "bin/static_server", work / "events", "text/event-stream", "events"]) as url:
        with ways(build, work, url + "/v1") as all_ways:
            rounds = in_rounds(build, all_ways, STREAMS, 1, work / "streamed")
    line_added(report, rounds, f"added to a stream of {EVENTS:,} events in one go", "whole_us")
    line_cpu(report, rounds, "a streamed event", EVENTS)
    usage = {"prompt_tokens": 10, "completion_tokens": EVENTS - 3}
    line_cost(report, work, "streams", usage)


def bench_open_streams(report, build, work):
    """PSS while each stream has had an event, and waits for the next one."""
    grown = []
    for way in (our_proxy, nginx):
        with scripted_model(work) as model:
            arguments = (build, work) if way is our_proxy else (work,)
            with way(*arguments, model.endpoint("drip")) as between:
                calls(between.command(build, 1, 1, work / "question"))
                before = pss_kib(between.process.pid)
                asked = model.count()
                load = subprocess.Popen([str(word) for word in between.command(
                    build, OPEN_STREAMS, OPEN_STREAMS, work / "streamed")], stdout=subprocess.PIPE)
                wait_for(lambda: model.count() - asked == OPEN_STREAMS, load)
                grown.append((pss_kib(between.process.pid) / MIB, before / MIB))
                urllib.request.urlopen(model.url + "/release", timeout=PATIENCE).close()
                load.communicate()
                if load.returncode != 0:
                    raise Failed("not all streams came to their end")
    (ours, before), (theirs, theirs_before) = grown
    report.line("proxy", f"memory with {OPEN_STREAMS} streams open", ours, None, "MiB",
                f"PSS, {before:.1f} before; nginx {theirs:.1f}, {theirs_before:.1f} before")


def bench_cap(report, build, work):
    """A program that keeps calling, four calls at once, until it is refused."""
    cap = 0.5
    with server([build / "bin/static_server", work / "completion", "application/json"]) as url:
        with our_proxy(build, work, url + "/v1", "--cap-usd", cap) as ours:
            command = [str(word) for word in ours.command(build, 100_000, 4, work / "question")]
            refused = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    spent = last_told(work)["calls"] * cost(completion()["usage"])
    report.line("proxy", "spent under a cap of $0.50, 4 calls at once", spent, cap, "$", "by the model's own figures",
                holds=refused == 1 and cap / 2 < spent <= cap)


# ---- programs under exec -----------------------------------------------------------------------

AGENT = f"""#!/bin/sh
curl --silent --fail --header "Authorization: Bearer $OPENAI_API_KEY" --header 'Content-Type: application/json' \\
  --data '{{"model": "bench", "max_tokens": 4000, "messages": [{{"role": "user", "content": "Go on."}}]}}' \\
  "$OPENAI_BASE_URL/chat/completions" >/dev/null && {WRITE}
"""


def bench_side_by_side(report, build, work):
    bench = RunBench(build, work, 200)
    agent = work / "agent"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    (work / "prices").write_text(json.dumps(PRICES))
    with scripted_model(work) as model:
        env = bench.env | {"OPENAI_BASE_URL": model.endpoint(), "OPENAI_API_KEY": KEY}

        def clones(name, count):
            places = [work / f"{name}{number}" for number in range(count)]
            for place in places:
                run(["git", "clone", "-q", bench.url, place], env=bench.env)
            return places

        def command(place):
            return [build / "bin/necrocode", "exec", "--json", "--timeout", f"{PATIENCE}s", "--cap-usd", 1,
                    "--prices", work / "prices", "--test", TEST_COMMAND, "--push", f"exec/{place.name}",
                    "--out", work / f"out-{place.name}", "--", agent]

        def floor(place):
            script = f"{agent} && {BARE_TEST} && git checkout -q -b exec/{place.name} && git add -A && " \
                     "git -c user.name=bench -c user.email=bench@localhost commit -q -m Double && " \
                     f"git push -q origin exec/{place.name}"
            return ["sh", "-c", script]

        def all_at_once(name, command_of):
            """Results, wall seconds, CPU seconds a run, peak MiB of our own processes a run."""
            places = clones(name, SIDE_BY_SIDE)
            before, begin = children_seconds(), time.perf_counter()
            processes = [subprocess.Popen([str(word) for word in command_of(place)], cwd=place, env=env,
                                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                         for place in places]
            memory = Memory(bench.binary, [process.pid for process in processes], every=0.02)
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                outputs = list(pool.map(lambda process: process.communicate()[0], processes))
            seconds = time.perf_counter() - begin
            return processes, outputs, seconds, (children_seconds() - before) / SIDE_BY_SIDE, memory

        processes, outputs, seconds, cpu, memory = all_at_once("own", command)
        peak = memory.stop()
        results = [json.loads(output.splitlines()[-1]) for output in outputs]
        tips = dict(line.split()[::-1] for line in
                    run(["git", "ls-remote", "--heads", bench.remote, "exec/own*"], env=bench.env).splitlines())
        true = [process.returncode == 0 and result["provider"]["calls"] == 1 and
                tips.get(f"refs/heads/exec/own{number}") == result["push"]["commit"]
                for number, (process, result) in enumerate(zip(processes, results))]
        _, _, bare_seconds, bare_cpu, memory = all_at_once("bare", floor)
    report.line("proxy", f"{SIDE_BY_SIDE} programs under exec at once that are true", sum(true), SIDE_BY_SIDE, "",
                "exit code, call, branch at the remote", at_least=True)
    report.line("proxy", f"wall of {SIDE_BY_SIDE} at once", seconds, None, "s",
                f"in a bare script {bare_seconds:.1f} s")
    report.line("proxy", "our memory a run", peak / SIDE_BY_SIDE, 15, "MiB", f"PSS of necrocode, all {peak:.0f} MiB")
    report.line("proxy", "CPU of a run − the same steps in a script", (cpu - bare_cpu) * 1000, None, "ms",
                f"with all children; {cpu * 1000:.0f} ms against {bare_cpu * 1000:.0f} ms")


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
