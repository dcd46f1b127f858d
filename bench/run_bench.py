"""What measures a run of `necrocode`: a remote, tasks for it, the same work in a shell script, the scripted model."""
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from measure import ROOT, Failed, Memory, run, server

FILE = "double.py"
FILE_TEXT = "def double(x):\n    return 2 * x\n"
TEST_COMMAND = f"grep -q 'return 2' {FILE}"
WRITE = f"printf %s {shlex.quote(FILE_TEXT)} >{FILE}"
BARE_TEST = f"/bin/sh -c {shlex.quote(TEST_COMMAND)}"


def script(change, test=BARE_TEST):
    """A user's own way to a pushed change, with the remote's URL, a new folder and a branch as its words."""
    return f"""set -eu
git clone -q "$1" "$2"
cd "$2"
git checkout -q -b "$3"
{change}
{test}
git add -A
git -c user.name=bench -c user.email=bench@localhost commit -q -m "Double"
git push -q origin "$3"
test "$(git ls-remote origin "refs/heads/$3" | cut -f1)" = "$(git rev-parse HEAD)"
"""


@dataclass
class Spent:
    wall: float  # seconds
    cpu: float  # user and system, of all processes that were waited for
    exit_code: int
    events: list = field(default_factory=list)  # JSON lines of its output, if it has such


def spend(command, env):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env,
                            stdin=subprocess.DEVNULL)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, Spent(wall, cpu, result.returncode)


def succeed(command, env):
    result, spent = spend(command, env)
    if result.returncode != 0:
        raise Failed(f"{command[0]} ended with {result.returncode}: {(result.stdout + result.stderr)[-2000:]}")
    spent.events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return spent


def peak_of(command, env):
    """Peak PSS of a command and all that it starts."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, env=env)
    memory = Memory(None, [process.pid], every=0.005)
    code = process.wait()
    peak = memory.stop()
    if code != 0:
        raise Failed(f"{command[0]} ended with {code}")
    return peak


class Model:
    """A scripted model service that runs, and the requests it got."""

    def __init__(self, url, log):
        self.url, self.log = url, log

    def endpoint(self, behaviour="answer"):
        return f"{self.url}/{behaviour}/v1"

    def count(self):
        return len(self.log.read_bytes().splitlines())

    def calls(self, after=0):
        return [json.loads(line) for line in self.log.read_text().splitlines()[after:]]


@contextmanager
def scripted_model(work, prefix=()):
    log = work / "model.log"
    log.write_text("")
    command = [*prefix, sys.executable, ROOT / "bench/scripted_model.py", FILE, FILE_TEXT, log]
    with server(command) as url:
        yield Model(url, log)


class RunBench:
    """A remote with so many files, and runs on it."""

    def __init__(self, build, work, files):
        self.binary, self.work = build / "bin/necrocode", work
        work.mkdir(exist_ok=True)
        self.remote = work / "remote.git"
        self.url = f"file://{self.remote}"  # for both: git clones a plain path by links, without a transfer
        self.number = 0
        self.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env |= {"HOME": str(work / "home"), "NECROCODE_DATA": str(work / "data"),
                     "GIT_CONFIG_GLOBAL": "/dev/null"}
        (work / "home").mkdir()
        self.seed(files)

    def seed(self, files):
        tree = self.work / "seed"
        tree.mkdir()
        for number in range(files):
            file = tree / f"part{number % 10}" / f"file{number}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"VALUE = {number}\n" * 40)
        for command in (
            ["git", "init", "-q", "--bare", "-b", "main", self.remote],
            ["git", "-C", tree, "init", "-q", "-b", "main"],
            ["git", "-C", tree, "add", "-A"],
            ["git", "-C", tree, "-c", "user.name=bench", "-c", "user.email=bench@localhost",
             "commit", "-q", "-m", "Seed"],
            ["git", "-C", tree, "push", "-q", self.remote, "main"],
        ):
            run(command, env=self.env)

    def fields(self, **more):
        return {"title": "Double a number", "description": f"Add {FILE}.", "test_commands": [TEST_COMMAND],
                "base_branch": "main", "repo_url": self.url} | more

    def command(self, endpoint, *options, **more):
        """`necrocode run` of a new task."""
        self.number += 1
        file = self.work / f"task{self.number}.json"
        file.write_text(json.dumps(self.fields(task_id=f"bench:{self.number}", **more)))
        return [self.binary, "run", file, "--llm-endpoint", endpoint, "--out", self.work / f"out{self.number}",
                "--json", *options]

    def scripted(self, text):
        """The same by a shell script."""
        self.number += 1
        file = self.work / f"script{self.number}.sh"
        file.write_text(text)
        return ["sh", file, self.url, self.work / f"clone{self.number}", f"script-{self.number}"]

    def own(self, endpoint, *options, **more):
        spent = succeed(self.command(endpoint, *options, **more), self.env)
        if not spent.events[-1].get("success"):
            raise Failed(f"the run did not succeed: {spent.events[-1]}")
        return spent

    def floor(self, change=WRITE, test=BARE_TEST):
        return succeed(self.scripted(script(change, test)), self.env)

    def at_once(self, endpoint, count):
        """Wall seconds and peak PSS of `count` runs started together."""
        commands = [[str(word) for word in self.command(endpoint)] for _ in range(count)]
        begin = time.perf_counter()
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.env)
                     for command in commands]
        memory = Memory(self.binary, [process.pid for process in processes])
        complaints = [process.communicate()[1] for process in processes]
        seconds = time.perf_counter() - begin
        peak = memory.stop()
        for process, words in zip(processes, complaints):
            if process.returncode != 0:
                raise Failed(f"a run ended with {process.returncode}: {words.decode()[-2000:]}")
        return seconds, peak

    def branches(self, pattern):
        return len(run(["git", "ls-remote", "--heads", self.remote, pattern], env=self.env).splitlines())
