"""Proofs rather than times: the tests of the registry's process (tests/e2e/registry_*), in their long forms."""
import json
import os
import subprocess

from measure import Failed

KILLS = 200
FAULTS = 20  # places of an error, for each kind


def told_by(build, tests, **environment):
    """What these tests said on their own lines, and the names of those that failed or were skipped."""
    command = [str(build / "bin/test_e2e"), f"--gtest_filter={tests}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    lines = result.stdout.splitlines()
    if not any(line.startswith("[==========]") and "ran." in line for line in lines):
        raise Failed(f"{tests} did not end:\n{(result.stdout + result.stderr)[-2000:]}")
    told = [json.loads(line.split(": ", 1)[1]) for line in lines if line.startswith(("crash: ", "trace: ", "faults: "))]
    not_passed = [line for line in lines if line.startswith(("[  FAILED  ]", "[  SKIPPED ]")) and line.endswith("ms)")]
    return told, not_passed


def bench_durability(report, build, _work):
    kills, not_passed = told_by(build, "RegistryCrash.Killed*", NECROCODE_CRASH_KILLS=str(KILLS))
    if not kills:
        raise Failed("; ".join(not_passed))
    crash = kills[0]
    note = f"{crash['acknowledged']} answers, {crash['completed']} tasks; NECROCODE_CRASH_SEED={crash['seed']}"
    for name, what in (("lost", "acknowledged writes lost"), ("duplicates", "writes doubled"),
                       ("double_claims", "tasks claimed twice"), ("wrong_answers", "answers that nobody should get")):
        report.line("durability", f"{crash['kills']} kill -9 under 8 workers: {what}", crash[name], 0, "", note)
    report.line("durability", "ready again after kill -9, the slowest", crash["ready_max_ms"], 1000, "ms",
                f"the median {crash['ready_median_ms']:.0f} ms")
    for tests, what in (
            ("RegistryTrace.*", "answers before the sync of what they say"),
            ("RegistryFaults.*", f"I/O errors at {FAULTS} places each: false or no stop"),
            ("RegistryDiskFull.*", "a full disk: refused, read, gone on"),
            ("RegistryCrash.Asked*", "asked to end under 8 workers: lost, or not gone in 10 s"),
            ("RegistryFence.*", "words of stopped claimants that changed a state"),
            ("RegistryClock.*", "leases that end otherwise when the clock is set by 2 h")):
        told, not_passed = told_by(build, tests, NECROCODE_FAULTS=str(FAULTS))
        note = "; ".join(not_passed) or ", ".join(json.dumps(one) for one in told)
        report.line("durability", what, len(not_passed), 0, "", note)
