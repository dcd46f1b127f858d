#!/usr/bin/env python3
"""matrix.py BUILD_FOLDER [WORD...]

`necrocode exec` around four real agent programs from npm, unmodified, and around small ones with bad habits, in a
network namespace that has nothing but a loopback (as root), with a scripted model: for each way in which a model fails
and a program misbehaves it must end in time, with the exit code of what was wrong, the cost that the model tells,
nothing left and nothing changed elsewhere, and the key nowhere. One line a case; WORDs: only cases that have one in
their name. Packages stay in $NECROCODE_NPM_CACHE when that is set. Exit 0: all hold; 1: one does not; 2: wrong
arguments; 3: it could not be tried.
"""
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

import small_agents as small  # noqa: E402
from agents import PROMPT, loopback_only  # noqa: E402
from measure import Failed, run  # noqa: E402
from run_bench import scripted_model  # noqa: E402
from supervised import Case, Supervised, cost_of  # noqa: E402

PACKAGES = ("@openai/codex@0.171.0", "@mariozechner/pi-coding-agent@0.73.1", "opencode-ai@1.18.33",
            "@anthropic-ai/claude-code@2.1.332")
PROGRAMS = {"codex": ["codex", "exec", PROMPT], "pi": ["pi", "--print", PROMPT],
            "opencode": ["opencode", "run", PROMPT], "claude": ["claude", "--print", PROMPT]}
# How the model behaves, and the exit code that follows.
BEHAVIOURS = {"answer": 0, "nothing": 1, "401": 7, "402": 7, "context": 8, "429": 9, "500": 9, "reset": 9, "html": 8,
              "silence": 9}
SECONDS = {"opencode": 60}  # it takes long to begin; the others:
USUAL_SECONDS = 30
AT_ONCE = 2
DAILY_CAP = 0.05
TEN = 10


def real_cases():
    for name, argv in PROGRAMS.items():
        for behaviour, code in BEHAVIOURS.items():
            yield Case(f"{name} {behaviour}", behaviour, (code,), argv, timeout=SECONDS.get(name, USUAL_SECONDS))
        # Stopped by the cap, before the call that would pass it, or by the deadline.
        yield Case(f"{name} loop", "loop", (7, 4), argv, timeout=SECONDS.get(name, USUAL_SECONDS))


def small_cases():
    def case(name, text, code, behaviour="answer", timeout=20, cap=5):
        return Case(f"small {name}", behaviour, (code,), text=text, timeout=timeout, cap=cap)

    yield case("solves", small.SOLVES, 0)
    yield case("streams", small.STREAMS, 0)
    yield case("does nothing", small.NOTHING, 1)
    for behaviour, code in BEHAVIOURS.items():
        if behaviour not in ("answer", "nothing"):
            yield case(f"meets {behaviour}", small.SOLVES, code, behaviour)
    yield case("loops until refused", small.LOOPS, 7, cap=0.1)
    yield case("loops whatever happens", small.LOOPS_WHATEVER_HAPPENS, 7, timeout=10, cap=0.05)
    yield case("ignores signals", small.IGNORES_SIGNALS, 4, timeout=5)
    yield case("leaves daemons", small.DAEMON, 0)
    yield case("writes outside", small.OUTSIDE, 0)
    yield case("plants in git", small.PLANTS_IN_GIT, 0)
    yield case("asks for input", small.ASKS, 1)
    yield case("spies", small.SPIES, 0)  # the key of its run, which it finds, is worth nothing
    yield case("goes around", small.GOES_AROUND, 1)


class Matrix:
    def __init__(self, binary, words):
        self.binary, self.words = binary, words
        self.failed = 0

    def chosen(self, name):
        return not self.words or any(word in name for word in self.words)

    def tell(self, name, supervised, wrong):
        self.failed += bool(wrong)
        print(f"{name:32} exit {supervised.exit_code}  {supervised.seconds:5.1f} s  ${supervised.cost:.4f}  "
              f"{'; '.join(wrong) or 'ok'}", flush=True)
        if not wrong:
            supervised.clean()

    def supervised(self, case):
        return Supervised(self.binary, self.inside, self.model, self.programs, self.work, case)

    def one(self, case):
        supervised = self.supervised(case)
        supervised.cost = 0
        self.tell(case.name, supervised, supervised.go())

    def killed(self):
        case = Case("small is killed with necrocode", "answer", (), text=small.DAEMON.replace("exit 0", "sleep 86399"))
        if self.chosen(case.name):
            supervised = self.supervised(case)
            self.tell(case.name, supervised, supervised.go_and_be_killed())

    def ten(self):
        """Ten runs with one day's cap, which each of them would pass alone."""
        if not self.chosen("small ten share a cap"):
            return
        case = Case("small ten share a cap", "answer", (7,), text=small.LOOPS, timeout=60,
                    options=("--daily-cap-usd", DAILY_CAP))
        runs = [self.supervised(case) for _ in range(TEN)]
        for one in runs:
            one.env["NECROCODE_DATA"] = str(self.work / "shared-data")
        with ThreadPoolExecutor(TEN) as pool:
            wrong = sum(pool.map(lambda one: one.go(), runs), [])
        costs = [cost_of(one.calls()) for one in runs]
        if not DAILY_CAP / 2 < sum(costs) <= DAILY_CAP:
            wrong.append(f"together ${sum(costs):.4f}, of ${DAILY_CAP}")
        runs[0].cost = sum(costs)
        self.tell(case.name, runs[0], wrong)
        if not wrong:
            for one in runs:
                one.clean()

    def run(self, programs, work, inside, model):
        self.programs, self.work, self.inside, self.model = programs, work, inside, model
        cases = [case for case in [*real_cases(), *small_cases()] if self.chosen(case.name)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(self.one, cases):
                pass
        self.killed()
        self.ten()


def install(folder):
    folder.mkdir(parents=True, exist_ok=True)
    # Two of them put a native program in its place when they are installed.
    run(["npm", "install", "--loglevel=error", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES])
    return folder / "node_modules/.bin"


def main(arguments):
    if arguments in (["--help"], ["-h"]):
        print(__doc__.strip())
        return 0
    if not arguments or not Path(arguments[0], "bin/necrocode").exists():
        print("usage: matrix.py BUILD_FOLDER [WORD...]", file=sys.stderr)
        return 2
    matrix = Matrix(Path(arguments[0], "bin/necrocode").resolve(), arguments[1:])
    work = Path(tempfile.mkdtemp(prefix="necrocode-agents-"))
    try:
        programs = install(Path(os.environ.get("NECROCODE_NPM_CACHE", work), "agents"))
        with loopback_only() as inside, scripted_model(work, inside) as model:
            matrix.run(programs, work, inside, model)
    except Failed as failure:
        print(f"matrix: {failure}", file=sys.stderr)
        return 3
    if matrix.failed:
        print(f"matrix: {matrix.failed} cases do not hold; what they left is in {work}", file=sys.stderr)
        return 1
    shutil.rmtree(work)
    return 0


sys.exit(main(sys.argv[1:]))
