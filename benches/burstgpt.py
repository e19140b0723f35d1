#!/usr/bin/env python3
"""BurstGPT CSV: reading it and computing the same figures, with warmpath, pandas and polars, in one run.

    cargo build --release
    python3 -m venv env && env/bin/pip install pandas polars
    env/bin/python benches/burstgpt.py [BurstGPT_1.csv]

Without a file, the real first rows are repeated to 1.4 million. Each tool is a process of its own, startup included;
the best of three runs counts. The figures are printed side by side: they must agree.
"""

import json
import os
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
print(json.dumps([len(a), gaps.std() / gaps.mean(), dispersion(1), dispersion(60), *lengths(i), *lengths(o)]))
"""


def synthesise(path):
    head = (ROOT / "tests/data/burstgpt/BurstGPT_1.head30.csv").read_text().splitlines()
    rests = [line.split(",", 1)[1] for line in head[1:]]
    with open(path, "w") as file:
        file.write(head[0] + "\n")
        file.writelines(f"{row * 4},{rests[row % len(rests)]}\n" for row in range(ROWS))


def warmpath(path):
    command = [ROOT / "target/release/warmpath", "trace", "stats", path, "--json", "-"]
    stats = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[0]
    arrivals = stats["arrivals"]
    keys = ["mean", "p25", "p50", "p75", "p90", "p95", "p99", "max"]
    return [
        stats["requests"],
        arrivals["interarrival_cv"],
        arrivals["dispersion_1s"],
        arrivals["dispersion_60s"],
        *(stats["input_tokens"][key] for key in keys),
        *(stats["output_tokens"][key] for key in keys),
    ]


def python(code):
    def run(path):
        command = [sys.executable, "-c", code + FIGURES, path]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    return run


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(folder, "burstgpt.csv")
        if len(sys.argv) == 1:
            synthesise(path)
        tools = {"warmpath": warmpath, "pandas": python(PANDAS), "polars": python(POLARS)}
        times = {name: [] for name in tools}
        for _ in range(3):
            # Interleaved, so that a slow moment of the machine falls on all.
            for name, tool in tools.items():
                start = time.perf_counter()
                figures = tool(path)
                times[name].append(time.perf_counter() - start)
                if name == "warmpath":
                    expected = figures
                elif any(abs(a - b) > 1e-6 * max(1, abs(b)) for a, b in zip(figures, expected, strict=True)):
                    sys.exit(f"{name} finds {figures}, warmpath {expected}")
        own = min(times["warmpath"])
        print(f"{os.path.getsize(path) / 1e6:.1f} MB, the same {len(expected)} figures from all")
        for name, runs in times.items():
            print(f"{name:<9} {min(runs):7.3f} s   {min(runs) / own:5.2f} × warmpath's time")


if __name__ == "__main__":
    main()
