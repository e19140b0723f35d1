#!/usr/bin/env python3
"""Is the simulator faithful? A slice of a real trace through two real vLLMs (CPU, random weights) behind the router, and through the
simulator.

    faithful.py --venv VENV --warmpath BINARY [--requests 320] [--exact prefix_cost,round_robin] [--ranked ...]

The slice is of the Mooncake conversation trace, scaled down 16 times (blocks of 32 tokens for 512, prompts of up to 992) so that it
fits the models. `warmpath load` sends it, and `warmpath replay` replays it with as many blocks.

- `--exact`, these policies: are the same tokens cached, request by request? Spaced evenly, so that nothing waits, as the pace of a
  loaded test machine says nothing. Fails below 99 % equal, or with hit ratios more than a point apart.
- `--ranked`, these: does the simulator rank them as reality does? So close together that requests wait, with engines whose steps take
  as long as those of a GPU would (`paced.py`): on CPUs, busy engines slow each other, which no fleet of GPUs does. The simulator is
  not told the pace, but fitted to requests sent one by one before. Fails, with five policies or more, where the rank correlation
  of their mean times to first token is below 0.9. Wants a machine that has nothing else to do.

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
EXACT_POLICIES = "prefix_cost,round_robin,least_loaded,llmd,mooncake"
# That the simulator tells apart by some hundredths.
RANKED_POLICIES = "prefix_cost,round_robin,bounded_hash_prefix,random,longest_prefix"
# Where every cached token is to be told: it evicts much. vLLM keeps one of its blocks for itself.
EXACT = {"blocks": 95, "spacing": 0.5}
# Where requests are to wait for prefill, and not for blocks, nor for a place in the batch.
RANKED = {"blocks": 1023, "spacing": 0.2}
PACED = ["--worker-cls", "paced.PacedWorker"]
RANKED_OPTIONS = ["--max-num-seqs", "64", "--max-num-batched-tokens", "8192", *PACED]
# Sent one by one for the fit.
ALONE = {"requests": 40, "spacing": 2.0}


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


def start(arguments, logs, blocks, options=()):
    env = {"BLOCKS": str(blocks + 1), "PYTHONPATH": str(HERE)}
    vllms = [Vllm(name, arguments.venv, logs, env=env, options=options) for name in ("a", "b")]
    try:
        for vllm in vllms:
            vllm.wait()
    except BaseException:
        end(vllms)
        raise
    return vllms


def end(vllms):
    for vllm in vllms:
        vllm.end(signal.SIGKILL)


def measure(arguments, policy, vllms, model, folder, logs, trace):
    for vllm in vllms:
        requests.post(f"{vllm.url}/reset_prefix_cache", timeout=10).raise_for_status()
        # The reset is published with the next step; a prompt shorter than a block leaves nothing.
        requests.post(f"{vllm.url}/v1/completions", json={"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 1}, timeout=60)
    router = Router(arguments.warmpath.resolve(), vllms, model, folder, logs, f'policy = "{policy}"')
    try:
        router.wait()
        rows = folder / f"live-{policy}-{trace.stem}.csv"
        command = [arguments.warmpath, "load", trace, "--url", router.url, "--model", MODEL, "--vocabulary", "400"]
        subprocess.run([*command, "--csv", rows, "--keep-ties"], check=True, stdout=subprocess.DEVNULL)
    finally:
        router.end(signal.SIGTERM)
    return rows


def simulate(arguments, policy, folder, trace, blocks, fit):
    rows = folder / f"simulated-{policy}-{trace.stem}.csv"
    command = [arguments.warmpath, "replay", trace, "--policy", policy, "--instances", "2", "--blocks", str(blocks)]
    subprocess.run([*command, "--keep-ties", "--unknown-outputs", "--fit", fit, "--csv", rows], check=True)
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
        "hit_ratio": hit, "ttft_mean_s": ttft,
    }
    print(json.dumps(figures), flush=True)
    return {**figures, "differ": differ[:10]}


def exact(arguments, folder, logs):
    failures, fit = [], None
    trace = folder / "spaced.jsonl"
    write_slice(trace, arguments.requests, EXACT["spacing"])
    model = (arguments.venv / "tiny-model").resolve()
    vllms = start(arguments, logs, EXACT["blocks"])
    try:
        for policy in arguments.exact:
            live = measure(arguments, policy, vllms, model, folder, logs, trace)
            fit = fit or live
            figures = compare(policy, read(live), read(simulate(arguments, policy, folder, trace, EXACT["blocks"], fit)))
            if figures["equal"] < 0.99:
                failures.append(f"{policy}: {figures['equal']:.2%} of the requests have the simulated cached tokens: {figures['differ']}")
            if abs(figures["hit_ratio"][0] - figures["hit_ratio"][1]) > 0.01:
                failures.append(f"{policy}: hit ratios are {figures['hit_ratio']}")
    finally:
        end(vllms)
    return failures


def ranked(arguments, folder, logs):
    alone, crowded = folder / "alone.jsonl", folder / "crowded.jsonl"
    write_slice(alone, ALONE["requests"], ALONE["spacing"])
    write_slice(crowded, arguments.requests, arguments.spacing)
    model = (arguments.venv / "tiny-model").resolve()
    vllms = start(arguments, logs, RANKED["blocks"], RANKED_OPTIONS)
    try:
        fit = measure(arguments, "round_robin", vllms, model, folder, logs, alone)
        lives = [measure(arguments, policy, vllms, model, folder, logs, crowded) for policy in arguments.ranked]
    finally:
        end(vllms)
    simulated = [simulate(arguments, policy, folder, crowded, RANKED["blocks"], fit) for policy in arguments.ranked]
    figures = [compare(policy, read(live), read(simulated)) for policy, live, simulated in zip(arguments.ranked, lives, simulated)]
    correlation = rank_correlation(*zip(*(each["ttft_mean_s"] for each in figures)))
    print(json.dumps({"rank_correlation_of_ttft": correlation}), flush=True)
    if len(figures) >= 5 and correlation < 0.9:
        return [f"the rank correlation of TTFT is {correlation:.2f}"]
    return []


def main():
    names = lambda text: [name for name in text.split(",") if name]
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--warmpath", type=pathlib.Path, required=True)
    parser.add_argument("--requests", type=int, default=320)
    parser.add_argument("--exact", type=names, default=names(EXACT_POLICIES), help="policies; none: ''")
    parser.add_argument("--ranked", type=names, default=names(RANKED_POLICIES), help="policies; none: ''")
    parser.add_argument("--spacing", type=float, default=RANKED["spacing"], help="seconds between requests that are to wait")
    parser.add_argument("--keep-logs", type=pathlib.Path)
    arguments = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        logs = arguments.keep_logs or folder
        logs.mkdir(parents=True, exist_ok=True)
        if arguments.exact:
            failures += exact(arguments, folder, logs)
        if arguments.ranked:
            failures += ranked(arguments, folder, logs)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
