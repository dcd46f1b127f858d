"""Two agent programs from npm that do the same task, with no network but a loopback of their own."""
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass

from measure import Failed, npm_install

PACKAGES = ("@openai/codex@0.171.0", "@mariozechner/pi-coding-agent@0.73.1")  # both run on Node.js 20
PROMPT = "Add double.py, which has a function that doubles a number."

CODEX_CONFIG = """model = "bench"
model_provider = "bench"
check_for_update_on_startup = false
analytics.enabled = false
feedback.enabled = false
otel = {{ exporter = "none", trace_exporter = "none", metrics_exporter = "none" }}

[model_providers.bench]
name = "bench"
base_url = "{endpoint}"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
"""
PI_CONFIG = """{{"providers": {{"bench": {{"baseUrl": "{endpoint}", "api": "openai-completions", "apiKey": "none",
  "models": [{{"id": "bench"}}]}}}}}}
"""


@contextmanager
def loopback_only():
    """A network namespace that has nothing but a loopback; gives what to put before a command to run it there."""
    if not (shutil.which("ip") and shutil.which("nsenter")):
        raise Failed("ip or nsenter is missing (Debian: apt-get install iproute2 util-linux)")
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]  # until its stdin ends
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as holder:
        if holder.stdout.readline() != "up\n":
            raise Failed(f"no network namespace can be made; is this run as root? {holder.stderr.read().strip()}")
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        holder.stdin.close()


@dataclass
class Agent:
    name: str
    command: list
    env: dict


def install(work):
    npm_install(work, *PACKAGES)


def agents(work, endpoint):
    """The installed ones with a home of their own each, for this model; nothing of theirs calls elsewhere."""
    programs = work / "node_modules/.bin"

    def agent(name, config_file, config, *command):
        home = work / "homes" / name / endpoint.split("/")[-2]
        (home / config_file).parent.mkdir(parents=True, exist_ok=True)
        (home / config_file).write_text(config.format(endpoint=endpoint))
        (home / "tmp").mkdir(exist_ok=True)  # codex refuses a home inside of it
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home / "tmp"),
               "GIT_CONFIG_GLOBAL": "/dev/null", "OPENAI_API_KEY": "none", "PI_OFFLINE": "1", "PI_TELEMETRY": "0"}
        return Agent(name, [programs / command[0], *command[1:], PROMPT], env)

    return [agent("codex", ".codex/config.toml", CODEX_CONFIG,
                  "codex", "exec", "--strict-config", "--ephemeral", "--sandbox", "workspace-write"),
            agent("pi", ".pi/agent/models.json", PI_CONFIG,
                  "pi", "--print", "--no-session", "--provider", "bench", "--model", "bench")]
