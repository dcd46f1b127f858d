"""What the areas of scripts/bench share: the report, programs measured in turn, CPU and memory of processes."""
import json
import os
import shutil
import statistics
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7
MIB = 1024.0  # of KiB


class Report:
    def __init__(self, as_json):
        self.as_json = as_json
        self.all_hold = True
        self.headed = False

    def line(self, area, bar, value, limit, unit, note="", holds=None, at_least=False):
        """`limit` None: a figure without a bar, which always holds; `at_least`: it is a lower one."""
        if holds is None:
            holds = limit is None or (value >= limit if at_least else value <= limit)
        self.all_hold = self.all_hold and holds
        if self.as_json:
            figure = {"area": area, "bar": bar, "value": round(value, 4), "limit": limit, "unit": unit,
                      "holds": holds, "note": note}
            print(json.dumps(figure, ensure_ascii=False), flush=True)
            return
        if not self.headed:
            print(f"{'area':10} {'figure':60} {'value':>9} {'limit':>7} {'unit':5} holds  note")
            self.headed = True
        shown = "" if limit is None else ("≥" if at_least else "") + f"{limit:.4g}"
        print(f"{area:10} {bar:60} {value:9.3f} {shown:>7} {unit:5} {'yes' if holds else 'NO':5}  {note}", flush=True)


class Failed(Exception):
    pass


def run(command, **options):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if result.returncode != 0:
        tail = (result.stdout + result.stderr)[-2000:]
        raise Failed(f"{' '.join(map(str, command))} ended with {result.returncode}:\n{tail}")
    return result.stdout


def build_release():
    # What it builds with is its own affair; its progress goes to stderr.
    command = [ROOT / "scripts/build", "release"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise Failed("the release build failed")
    return Path(result.stdout.strip())


@contextmanager
def server(command, **options):
    """Starts a server whose first line on stdout says where it is; the URL."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True, **options)
    try:
        line = process.stdout.readline().strip()
        if not line:
            raise Failed(f"{command[0]} did not start")
        yield json.loads(line)["url"] if line.startswith("{") else line
    finally:
        process.terminate()
        process.wait()


def calls(command):
    return json.loads(run(command))


def in_turn(*commands):
    """For each of the programs what it told, round for round; in a round they run one after the other."""
    return zip(*[[calls(command) for command in commands] for _ in range(ROUNDS)])


def cpu_us(result):
    return result["cpu_seconds"] / result["calls"] * 1e6


def cpu_ratio(own, other):
    """Median over rounds of own CPU ÷ the other's for the same calls, and both in µs a call."""
    ratio = statistics.median(cpu_us(a) / cpu_us(b) for a, b in zip(own, other))
    own_us, other_us = (statistics.median(map(cpu_us, results)) for results in (own, other))
    return ratio, f"{own_us:.1f} µs against {other_us:.1f} µs a call"


def cpu_seconds_of(pid):
    """Of a process until now, with those of its threads that have ended."""
    return time.clock_gettime((~pid << 3) | 2)  # its clock, as clock_getcpuclockid(3) makes it


def pss_kib(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise Failed(f"no PSS of process {pid}")


@contextmanager
def services(build, work, *options, under=()):
    """The shipped services with an empty data folder; their process and port. `under` another program: its process."""
    command = [*under, build / "bin/necrocode", "serve", "--listen", "127.0.0.1:0", "--data", work / "data", *options]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise Failed("the services did not start")
        yield process, int(json.loads(line)["url"].rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def npm_install(folder, *packages):
    if not shutil.which("npm"):
        raise Failed("npm is missing, which installs the peers (Debian: apt-get install npm)")
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    run(["npm", "install", "--loglevel=error", "--fetch-retries=1", "--no-audit", "--no-fund", "--ignore-scripts",
         "--prefix", folder, *packages])


def install_peer(work, program, *packages):
    """`program` of bench/ with npm's `packages` beside it."""
    npm_install(work / "peer", *packages)
    return shutil.copy(ROOT / "bench" / program, work / "peer")


@contextmanager
def on_processors(count):
    """What is started meanwhile shares so many processors."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


class Memory:
    """Peak PSS of all processes of one binary (None: of any) below some roots, sampled until stopped."""

    def __init__(self, binary, roots, every=0.002):
        self.binary, self.roots, self.every = binary and str(binary), roots, every
        self.peak_kib, self.samples = 0, 0
        self.going = True
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def stop(self):
        self.going = False
        self.thread.join()
        if self.samples == 0:
            raise Failed("no memory could be read; is this run as root?")
        return self.peak_kib / MIB

    def sample(self):
        while self.going:
            total = self.now()
            if total:
                self.samples += 1
                self.peak_kib = max(self.peak_kib, total)
            time.sleep(self.every)

    def now(self):
        return sum(self.pss(pid) for root in self.roots for pid in self.family(root))

    def family(self, root):
        waiting, found = [root], []
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    waiting += [int(p) for p in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
            except OSError:
                continue
        return found

    def pss(self, pid):
        try:
            if self.binary and os.readlink(f"/proc/{pid}/exe") != self.binary:
                return 0
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1])
        except (OSError, ProcessLookupError):
            pass
        return 0


def peak_pss(command):
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    memory = Memory(command[0], [process.pid])
    process.wait()
    peak = memory.stop()
    if process.returncode != 0:
        raise Failed(f"{command[0]} ended with {process.returncode}")
    return peak
