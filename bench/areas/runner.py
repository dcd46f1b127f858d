"""`necrocode run` and the demo."""
import json
import os
import statistics
import subprocess
import time

from measure import ROUNDS, Failed, Memory, run, server

FILE_TEXT = "def double(x):\n    return 2 * x\n"
TEST_COMMAND = "grep -q 'return 2' double.py"
FLOOR_SCRIPT = f"""set -eu
git clone -q "$1" "$2"
cd "$2"
git checkout -q -b "$3"
printf '{FILE_TEXT.encode("unicode_escape").decode()}' >double.py
{TEST_COMMAND}
git add -A
git -c user.name=bench -c user.email=bench@localhost commit -q -m "Double"
git push -q origin "$3"
test "$(git ls-remote origin "refs/heads/$3" | cut -f1)" = "$(git rev-parse HEAD)"
"""


class RunnerBench:
    def __init__(self, build, work, model):
        self.binary, self.work, self.model = build / "bin/necrocode", work, model
        self.remote = work / "remote.git"
        self.number = 0
        self.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env |= {"HOME": str(work / "home"), "NECROCODE_DATA": str(work / "data"), "GIT_CONFIG_GLOBAL": "/dev/null"}
        (work / "home").mkdir()
        self.seed()
        self.floor_script = work / "floor.sh"
        self.floor_script.write_text(FLOOR_SCRIPT)

    def seed(self):
        tree = self.work / "seed"
        tree.mkdir()
        for number in range(200):
            file = tree / f"part{number % 10}" / f"file{number}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"VALUE = {number}\n" * 40)
        for command in (
            ["git", "init", "-q", "--bare", "-b", "main", self.remote],
            ["git", "-C", tree, "init", "-q", "-b", "main"],
            ["git", "-C", tree, "add", "-A"],
            ["git", "-C", tree, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "Seed"],
            ["git", "-C", tree, "push", "-q", self.remote, "main"],
        ):
            run(command, env=self.env)

    def task(self):
        self.number += 1
        file = self.work / f"task{self.number}.json"
        file.write_text(json.dumps({
            "task_id": f"bench:{self.number}", "title": "Double a number", "description": "Add double.py.",
            "test_commands": [TEST_COMMAND], "base_branch": "main"}))
        return [self.binary, "run", file, "--repo", f"file://{self.remote}", "--llm-endpoint", self.model + "/v1",
                "--out", self.work / f"out{self.number}", "--json"]

    def own(self):
        begin = time.perf_counter()
        lines = run(self.task(), env=self.env).splitlines()
        seconds = time.perf_counter() - begin
        result = json.loads(lines[-1])
        if not result.get("success"):
            raise Failed(f"the run did not succeed: {lines[-1]}")
        return seconds

    def floor(self):
        self.number += 1
        target = self.work / f"floor{self.number}"
        begin = time.perf_counter()
        run(["sh", self.floor_script, self.remote, target, f"floor-{self.number}"], env=self.env)
        return time.perf_counter() - begin

    def at_once(self, count):
        """Wall seconds and peak PSS of `count` runs started together."""
        commands = [[str(word) for word in self.task()] for _ in range(count)]
        begin = time.perf_counter()
        processes = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.env) for c in commands]
        memory = Memory(self.binary, [process.pid for process in processes])
        complaints = [process.communicate()[1] for process in processes]
        seconds = time.perf_counter() - begin
        peak = memory.stop()
        for process, words in zip(processes, complaints):
            if process.returncode != 0:
                raise Failed(f"a run ended with {process.returncode}: {words.decode()[-2000:]}")
        return seconds, peak


def bench_runner(report, build, work):
    cassette = work / "cassette.json"
    change = {"code_changes": [{"file_path": "double.py", "operation": "create", "content": FILE_TEXT}],
              "explanation": "Adds it."}
    cassette.write_text(json.dumps({"version": 1, "entries": [{"times": 0, "answer": {"content": json.dumps(change)}}]}))
    with server([build / "bin/necrocode", "llm", "serve-replay", cassette, "--listen", "127.0.0.1:0"]) as model:
        bench = RunnerBench(build, work, model)
        bench.own()  # keeps the baseline, fills the caches
        bench.floor()
        pairs = [(bench.own(), bench.floor()) for _ in range(ROUNDS)]
        own, floor = (statistics.median(column) * 1000 for column in zip(*pairs))
        over = statistics.median((a - b) * 1000 for a, b in pairs)
        report.line("runner", "one run − the same git steps in a shell script", over, 30, "ms",
                    f"{own:.0f} ms against {floor:.0f} ms; {own / floor:.2f}×")
        peak = min(bench.at_once(1)[1] for _ in range(5))
        report.line("runner", "peak memory of one run", peak, 15, "MiB", "PSS of runner and supervisor")
        seconds, peaks = zip(*(bench.at_once(10) for _ in range(5)))
        report.line("runner", "ten runs at once", min(seconds), 0.5, "s", "ten processes; ten in one worker come later")
        report.line("runner", "peak memory of ten runs at once", min(peaks), 100, "MiB", "PSS, ten processes")
    begin = time.perf_counter()
    result = json.loads(run([build / "bin/necrocode", "demo", "--json"], env=bench.env))
    seconds = time.perf_counter() - begin
    passed = sum(1 for check in result["checks"] if check["ok"])
    report.line("runner", "the demo", seconds, 45, "s", f"{passed} of {len(result['checks'])} checks, "
                f"{len(result['tasks'])} tasks", holds=bool(result["ok"]) and seconds <= 45)
