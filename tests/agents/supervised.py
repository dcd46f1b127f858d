"""One `necrocode exec` of an agent in a clone of its own, and what has to hold after each, whatever the agent did."""
import json
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from measure import Failed, run
from run_bench import FILE, TEST_COMMAND, WRITE
from small_agents import small_agent

MODELS = ("gpt-5", "gpt-5.5", "claude-sonnet-5", "claude-sonnet-4-5")
PRICE = {"input": 2.0, "output": 10.0, "cached_input": 0.5, "cache_write": 2.5}  # of each, for a million tokens
UNKNOWN = 1.5  # the most that calls without an answer are estimated at
LATE = 5  # seconds after the deadline
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
BRANCH = "feature/double"


@dataclass
class Case:
    name: str
    behaviour: str  # of the model: bench/scripted_model.py
    exit_codes: tuple
    argv: list = field(default_factory=list)  # what a user calls; else
    text: str = ""  # of a small agent
    timeout: int = 20
    cap: float = 5
    options: tuple = ()


def cost_of(calls):
    """By what the model told of each answer."""
    names = {"input": "input", "output": "output", "cached": "cached_input", "cache_write": "cache_write"}
    return sum(call["usage"][name] * PRICE[price] / 1e6
               for call in calls if call.get("usage") for name, price in names.items())


def contents(root):
    """Of all files below a folder, links as links, with their modes."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[str(path)] = (mode, os.readlink(path))
        elif path.is_file():
            found[str(path)] = (mode, path.read_bytes())
        elif path.is_dir():
            found[str(path)] = (mode, None)
        else:
            found[str(path)] = (mode, "neither file nor folder")
    return found


def processes_with(mark):
    """Those that have a text in their command line, environment, working directory or cgroup: as PID: command."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            told = [command, (process / "environ").read_bytes().decode(errors="replace"),
                    os.readlink(process / "cwd"), (process / "cgroup").read_text()]
        except OSError:  # it has ended
            continue
        if any(mark in text for text in told):
            found.append(f"{process.name}: {command.strip()}")
    return found


class Supervised:
    def __init__(self, binary, inside, model, programs, work, case):
        self.binary, self.inside, self.model, self.case = binary, inside, model, case
        self.mark = f"{case.name.replace(' ', '-')}-{secrets.token_hex(6)}"
        self.key = f"sk-real-{secrets.token_hex(20)}"
        self.beside = work / self.mark
        self.clone, self.origin, self.out = self.beside / "clone", self.beside / "origin.git", self.beside / "out"
        self.prices = self.beside / "prices.json"
        self.make_folders()
        self.argv = case.argv or [small_agent(
            self.beside / "agents/agent", case.text, case=self.mark, beside=self.beside, model="gpt-5.5",
            write=WRITE, model_url=model.url)]
        self.env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.beside / "home"), "LANG": "C.UTF-8",
                    "NECROCODE_DATA": str(self.beside / "data"), "GIT_CONFIG_SYSTEM": "/dev/null",
                    "OPENAI_API_KEY": self.key, "OPENAI_BASE_URL": f"{model.url}/{case.behaviour}/v1",
                    "ANTHROPIC_API_KEY": self.key, "ANTHROPIC_BASE_URL": f"{model.url}/{case.behaviour}"}
        self.wrong = []

    def make_folders(self):
        sibling, home = self.beside / "sibling", self.beside / "home"
        home.mkdir(parents=True)
        (home / ".profile").write_text("# the user's\n")
        (home / ".gitconfig").write_text("[user]\n\tname = User\n\temail = user@example.org\n")
        self.prices.write_text(json.dumps({model: PRICE for model in MODELS}))
        for command in ([*GIT, "init", "-q", "--bare", "-b", "main", self.origin],
                        [*GIT, "init", "-q", "-b", "main", sibling]):
            run(command)
        (sibling / "kept.txt").write_text("kept\n")
        (sibling / "README.md").write_text("# A repository\n")
        for command in (["add", "-A"], ["commit", "-q", "-m", "Seed"], ["push", "-q", self.origin, "main"]):
            run([*GIT, "-C", sibling, *command])
        run([*GIT, "clone", "-q", self.origin, self.clone])

    def command(self, *options):
        case = self.case
        return [str(word) for word in (
            *self.inside, self.binary, "exec", "--json", "--timeout", f"{case.timeout}s", "--cap-usd", case.cap,
            "--prices", self.prices, "--test", TEST_COMMAND, "--push", BRANCH, "--out", self.out,
            *case.options, *options, "--", *self.argv)]

    def untouchable(self):
        """What no program has any business with; the branch that we push aside."""
        git = {path: what for path, what in contents(self.clone / ".git").items()
               if path.removeprefix(str(self.clone / ".git/")).split("/")[0] in ("hooks", "config", "info")}
        beside = {}
        for name in ("home", "sibling", "agents"):
            beside |= contents(self.beside / name)
        hooks = contents(self.origin / "hooks") | {"config": (self.origin / "config").read_bytes()}
        names = {name: None for name in os.listdir(self.beside) if name not in ("out", "data")}
        return git | beside | hooks | names

    def planted(self):
        places = ("/tmp", "/var/tmp", "/dev/shm", "/etc", "/usr/local/bin", "/root")
        return [place for place in places if os.path.exists(f"{place}/planted-{self.mark}")]

    def expect(self, holds, what):
        if not holds:
            self.wrong.append(what)

    def calls(self):
        return [call for call in self.model.calls() if call["key"] == self.key]

    def go(self):
        """Runs it, and gives what is wrong."""
        before = self.untouchable()
        begin = time.perf_counter()
        process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, cwd=self.clone, env=self.env)
        try:
            out, complaints = process.communicate(timeout=self.case.timeout + 60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, complaints = process.communicate()
            self.expect(False, "it did not end, and was killed")
        self.seconds = time.perf_counter() - begin
        self.exit_code = process.returncode
        left = processes_with(self.mark)
        self.expect(not left, f"processes are left: {left}")
        self.expect(self.seconds <= self.case.timeout + LATE, f"it took {self.seconds:.1f} s")
        self.expect(self.exit_code in self.case.exit_codes,
                    f"exit code {self.exit_code}, not {self.case.exit_codes}: {self.told(out, complaints)}")
        after = self.untouchable()
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        self.expect(not changed, f"changed outside of the work tree: {changed}")
        self.expect(not self.planted(), f"planted in {self.planted()}")
        self.check_result(out)
        self.check_key(out + complaints)
        return self.wrong

    def told(self, out, complaints):
        result = self.result_in(out) or {}
        return f"{result.get('error') or ''} {complaints.decode(errors='replace')[-600:]}".strip()

    @staticmethod
    def result_in(out):
        lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
        result = json.loads(lines[-1]) if lines else {}
        return result if result.get("type") == "result" else None

    def check_result(self, out):
        result = self.result_in(out)
        if not result:
            self.expect(False, "the last line is no result")
            return
        self.expect(result["exit_code"] == self.exit_code, f"the result tells exit code {result['exit_code']}")
        kept = self.out / "result.json"
        self.expect(kept.exists() and json.loads(kept.read_text())["exit_code"] == self.exit_code,
                    "result.json in --out does not tell the same")
        calls = self.calls()
        provider = result["provider"]
        self.expect(provider["calls"] == len(calls),
                    f"{provider['calls']} calls are told, and the model got {len(calls)}")
        real, own = cost_of(calls), provider["usage"].get("cost_usd") or 0
        self.cost = real
        # An answer that was cut off by the end: what it may have cost is estimated, and never too little.
        most = real + UNKNOWN if provider["usage"]["estimated"] else real * 1.01
        self.expect(real * 0.99 <= own <= most, f"cost ${own:.6f} is told, the model's own sum is ${real:.6f}")
        self.expect(max(own, real) <= self.case.cap, f"over its cap: ${own:.6f}, by the model ${real:.6f}")
        self.check_push(result)

    def check_push(self, result):
        there = run([*GIT, "ls-remote", self.origin, f"refs/heads/{BRANCH}"]).split()
        if self.exit_code != 0:
            self.expect(not there, "a branch was pushed although the run failed")
            return
        push = result.get("push") or {}
        self.expect(there and push.get("commit") == there[0], f"pushed {push}, the remote has {there}")
        if there:
            run([*GIT, "-C", self.origin, "show", f"{there[0]}:{FILE}"])
            changed = run([*GIT, "-C", self.origin, "diff", "--name-only", "main", there[0]]).split()
            known = [name for name in changed if name == FILE or name.startswith("found/")]
            self.expect(FILE in changed and known == changed, f"the pushed change is {changed}")

    def check_key(self, told):
        """The real key is nowhere but at the model, which saw no other."""
        self.expect(self.key.encode() not in told, "the key is in the output")
        holding = [str(path) for path in self.beside.rglob("*")
                   if path.is_file() and not path.is_symlink() and self.key.encode() in path.read_bytes()]
        self.expect(not holding, f"the key is in {holding}")
        for repository in (self.clone, self.origin):
            history = subprocess.run([*GIT, "-C", repository, "log", "--all", "--patch", "--text"],
                                     capture_output=True, check=True).stdout
            self.expect(self.key.encode() not in history, f"the key is in the history of {repository}")

    def go_and_be_killed(self):
        """necrocode is killed once its program is at work."""
        process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, cwd=self.clone, env=self.env)
        self.seconds, self.cost, self.exit_code = 0, 0, None
        try:
            if not eventually(self.calls, 20):
                raise Failed("the program does not begin")
            mine = [line.split(":")[0] for line in processes_with(self.mark) if str(self.binary) in line]
            self.expect(mine, "necrocode is not among the processes")
        finally:
            process.kill()  # nsenter became necrocode
            process.wait()
        self.expect(eventually(lambda: not processes_with(self.mark), LATE),
                    f"processes are left: {processes_with(self.mark)}")
        self.exit_code = process.returncode
        return self.wrong

    def clean(self):
        shutil.rmtree(self.beside, ignore_errors=True)


def eventually(what, seconds):
    end = time.perf_counter() + seconds
    while not what():
        if time.perf_counter() > end:
            return False
        time.sleep(0.02)
    return True
