#!/usr/bin/env python3
"""Is the simulator faithful? A slice of a real trace through two real vLLMs (CPU, tiny random model) behind the router, and
through the simulator: the same cached tokens, request by request?

    faithful.py --venv VENV --warmpath BINARY [--requests 320] [--policies prefix_cost,round_robin] [--spacing 0.5]

The slice is of the Mooncake conversation trace, scaled down 16 times (blocks of 32 tokens for 512, prompts of up to 992) so that it
fits the model, and spaced evenly, as the pace of a loaded test machine says nothing. `warmpath load` sends it, and
`warmpath replay` replays it with as many blocks. Fails below 99 % equal, with hit ratios more than a point apart, or, with five
policies or more, with a rank correlation of their mean times to first token below 0.9. Step times are fitted to the first run.
Run with the Python of VENV.
"""
import argparse
import csv
import gzip
import json
import pathlib
import signal
import subprocess
import sys
import tempfile

import requests

from fleet import BLOCK, HERE, MODEL, Router, Vllm

TRACE = HERE.parent / "data" / "mooncake" / "conversation_trace.jsonl.gz"
SCALE = 512 // BLOCK
PROMPT_TOKENS_MAX = 992
OUTPUT_TOKENS_MAX = 30
# Of the 96 that are configured vLLM keeps one for itself.
BLOCKS = 95


def write_slice(path, count, spacing):
    rows = [json.dumps({"warmpath_trace": 1, "block_tokens": BLOCK, "prefix": "real"})]
    for line in gzip.open(TRACE, "rt"):
        record = json.loads(line)
        prompt = -(-record["input_length"] // SCALE)
        if prompt > PROMPT_TOKENS_MAX or len(rows) > count:
            continue
        rows.append(json.dumps({
            "at_ns": int((len(rows) - 1) * spacing * 1e9), "prompt_tokens": prompt,
            "output_tokens": min(max(record["output_length"] // SCALE, 1), OUTPUT_TOKENS_MAX),
            "blocks": record["hash_ids"][: -(-prompt // BLOCK)],
        }))
    path.write_text("\n".join(rows) + "\n")


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order.index(at) for at in range(len(values))]


def rank_correlation(a, b):
    a, b, n = ranks(a), ranks(b), len(a)
    return 1 - 6 * sum((x - y) ** 2 for x, y in zip(a, b)) / (n * (n * n - 1))


def measure(arguments, policy, vllms, folder, logs, trace):
    for vllm in vllms:
        requests.post(f"{vllm.url}/reset_prefix_cache", timeout=10).raise_for_status()
        # The reset is published with the next step; a prompt shorter than a block leaves nothing.
        requests.post(f"{vllm.url}/v1/completions", json={"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 1}, timeout=60)
    model = (arguments.venv / "tiny-model").resolve()
    router = Router(arguments.warmpath.resolve(), vllms, model, folder, logs, f'policy = "{policy}"')
    try:
        router.wait()
        rows = folder / f"live-{policy}.csv"
        command = [arguments.warmpath, "load", trace, "--url", router.url, "--model", MODEL, "--vocabulary", "400"]
        subprocess.run([*command, "--csv", rows, "--keep-ties"], check=True, stdout=subprocess.DEVNULL)
    finally:
        router.end(signal.SIGTERM)
    return rows


def compare(policy, live, simulated):
    if len(live) != len(simulated):
        sys.exit(f"{policy}: {len(live)} requests answered, {len(simulated)} simulated")
    name = {"a": "0", "b": "1"}
    differ = [
        {"request": at, "vllm": [name[l["instance"]], l["cached_tokens"]], "simulated": [s["instance"], s["cached_tokens"]]}
        for at, (l, s) in enumerate(zip(live, simulated)) if l["cached_tokens"] != s["cached_tokens"]
    ]
    same_instance = sum(name[l["instance"]] == s["instance"] for l, s in zip(live, simulated)) / len(live)
    hit = [sum(int(row["cached_tokens"]) for row in rows) / sum(int(row["prompt_tokens"]) for row in rows) for rows in (live, simulated)]
    ttft = [sum(float(row["ttft_s"]) for row in rows) / len(rows) for rows in (live, simulated)]
    figures = {
        "policy": policy, "requests": len(live), "equal": 1 - len(differ) / len(live), "same_instance": same_instance,
        "hit_ratio": hit, "ttft_mean_s": ttft, "differ": differ[:10],
    }
    print(json.dumps(figures), flush=True)
    return figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--warmpath", type=pathlib.Path, required=True)
    parser.add_argument("--requests", type=int, default=320)
    parser.add_argument("--policies", default="prefix_cost,round_robin,least_loaded,llmd,mooncake")
    parser.add_argument("--spacing", type=float, default=0.5, help="seconds between requests")
    parser.add_argument("--keep-logs", type=pathlib.Path)
    arguments = parser.parse_args()
    vllms, failures, all_figures = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        logs = arguments.keep_logs or folder
        logs.mkdir(parents=True, exist_ok=True)
        trace = folder / "slice.jsonl"
        write_slice(trace, arguments.requests, arguments.spacing)
        try:
            for name in ("a", "b"):
                vllms.append(Vllm(name, arguments.venv, logs))
            for vllm in vllms:
                vllm.wait()
            fit = None
            for policy in arguments.policies.split(","):
                live = measure(arguments, policy, vllms, folder, logs, trace)
                fit = fit or live
                simulated = folder / f"simulated-{policy}.csv"
                command = [arguments.warmpath, "replay", trace, "--policy", policy, "--instances", "2", "--blocks", str(BLOCKS)]
                subprocess.run([*command, "--keep-ties", "--unknown-outputs", "--fit", fit, "--csv", simulated], check=True)
                all_figures.append(compare(policy, read(live), read(simulated)))
        finally:
            for vllm in vllms:
                vllm.end(signal.SIGKILL)
    for figures in all_figures:
        if figures["equal"] < 0.99:
            failures.append(f"{figures['policy']}: only {figures['equal']:.2%} of the requests have the simulated cached tokens")
        if abs(figures["hit_ratio"][0] - figures["hit_ratio"][1]) > 0.01:
            failures.append(f"{figures['policy']}: hit ratios are {figures['hit_ratio']}")
    if len(all_figures) >= 5:
        live, simulated = zip(*(figures["ttft_mean_s"] for figures in all_figures))
        correlation = rank_correlation(live, simulated)
        print(json.dumps({"rank_correlation_of_ttft": correlation}))
        if correlation < 0.9:
            failures.append(f"the rank correlation of TTFT is {correlation:.2f}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
