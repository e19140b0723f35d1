#!/usr/bin/env python3
"""BurstGPT CSV: reading it and computing the same figures, with warmpath, pandas and polars, in one run.

    cargo build --release
    python3 -m venv env && env/bin/pip install pandas polars
    env/bin/python benches/burstgpt.py [BurstGPT_1.csv]

Without a file, the real first rows are repeated to 1.4 million. Each tool is a process of its own, startup included, and the
tools take turns; medians of five runs are shown, of the elapsed time and of the processor's, with the ratio in the same round.
warmpath and pandas work on one thread; polars takes a thread a core, and is run on one, too. The figures must agree.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = 1_400_000

PANDAS = """
import sys, json, numpy as np, pandas as pd
t = pd.read_csv(sys.argv[1])
t = t[(t["Request tokens"] > 0) & (t["Response tokens"] > 0)]
a, i, o = t["Timestamp"].to_numpy(float), t["Request tokens"].to_numpy(), t["Response tokens"].to_numpy()
"""
POLARS = """
import sys, json, numpy as np, polars as pl
t = pl.read_csv(sys.argv[1]).filter((pl.col("Request tokens") > 0) & (pl.col("Response tokens") > 0))
a, i, o = (t[c].to_numpy() for c in ("Timestamp", "Request tokens", "Response tokens"))
"""
FIGURES = """
a = a - a[0]
gaps = np.diff(a)
def dispersion(width):
    c = np.bincount((a / width).astype(np.int64))[:-1]
    return c.var() / c.mean()
def lengths(x):
    q = np.percentile(x, [25, 50, 75, 90, 95, 99])
    return [x.mean(), *q, x.max()]
print(json.dumps([float(x) for x in [len(a), gaps.std() / gaps.mean(), dispersion(1), dispersion(60), *lengths(i), *lengths(o)]]))
"""


def synthesise(path):
    head = (ROOT / "tests/data/burstgpt/BurstGPT_1.head30.csv").read_text().splitlines()
    rests = [line.split(",", 1)[1] for line in head[1:]]
    with open(path, "w") as file:
        file.write(head[0] + "\n")
        file.writelines(f"{row * 4},{rests[row % len(rests)]}\n" for row in range(ROWS))


def run(command, threads):
    """What a command says, the seconds that went by, and those of processor time that it took."""
    environment = {**os.environ, **({"POLARS_MAX_THREADS": str(threads)} if threads else {})}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed")
    return json.loads(said), time.perf_counter() - start, used.ru_utime + used.ru_stime


def warmpath(path):
    said, wall, cpu = run([ROOT / "target/release/warmpath", "trace", "stats", path, "--json", "-"], None)
    [stats] = said
    arrivals = stats["arrivals"]
    keys = ["mean", "p25", "p50", "p75", "p90", "p95", "p99", "max"]
    figures = [
        stats["requests"],
        arrivals["interarrival_cv"],
        arrivals["dispersion_1s"],
        arrivals["dispersion_60s"],
        *(stats["input_tokens"][key] for key in keys),
        *(stats["output_tokens"][key] for key in keys),
    ]
    return figures, wall, cpu


def python(code, threads=None):
    return lambda path: run([sys.executable, "-c", code + FIGURES, path], threads)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(folder, "burstgpt.csv")
        if len(sys.argv) == 1:
            synthesise(path)
        cores = len(os.sched_getaffinity(0))
        tools = {
            "warmpath, 1 thread": warmpath,
            "pandas, 1 thread": python(PANDAS),
            f"polars, {cores} threads": python(POLARS, cores),
            "polars, 1 thread": python(POLARS, 1),
        }
        rounds = []
        for _ in range(5):
            # Interleaved, so that a slow moment of the machine falls on all.
            times = {}
            for name, tool in tools.items():
                figures, *times[name] = tool(path)
                if tool is warmpath:
                    expected = figures
                elif any(abs(a - b) > 1e-6 * max(1, abs(b)) for a, b in zip(figures, expected, strict=True)):
                    sys.exit(f"{name} finds {figures}, warmpath {expected}")
            rounds.append(times)
        print(f"{os.path.getsize(path) / 1e6:.1f} MB, the same {len(expected)} figures from all, load {os.getloadavg()[0]:.1f}")
        print(f"{'':<20} {'elapsed s':>10} {'ratio':>6} {'CPU s':>8} {'ratio':>6}")
        own = "warmpath, 1 thread"
        for name in tools:
            line = f"{name:<20}"
            for kind, width in ((0, 10), (1, 8)):
                median = statistics.median(times[name][kind] for times in rounds)
                ratio = statistics.median(times[name][kind] / times[own][kind] for times in rounds)
                line += f" {median:>{width}.3f} {ratio:>6.2f}"
            print(line)


if __name__ == "__main__":
    main()
