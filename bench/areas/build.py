"""The build itself."""
import os
import time

from measure import MIB, ROOT, run


def bench_build(report, build, work):
    binary = work / "necrocode"
    run(["strip", "-o", binary, build / "bin/necrocode"])
    report.line("build", "stripped binary", binary.stat().st_size / MIB / 1024, 12, "MiB")
    env = os.environ | {"CCACHE_DISABLE": "1", "NECROCODE_BUILD_DIR": str(work / "build")}
    begin = time.perf_counter()
    run([ROOT / "scripts/build", "release"], env=env)
    minutes = (time.perf_counter() - begin) / 60
    report.line("build", "clean release build, tests included", minutes, 10, "min", f"{os.cpu_count()} cores, no cache")
