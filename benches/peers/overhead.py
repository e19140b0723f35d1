#!/usr/bin/env python3
"""What a request costs in this router, vLLM Router and SMG, in one run with the same canned upstreams.

    overhead.py VENV WARMPATH [--rounds 5] [--requests 1500] [--distinct 20000]

VENV gets `vllm-router` and `smg` from PyPI the first time. Each round runs every router in turn, so that whatever else the machine
does is spread over all of them, at prompts of 1 kB and 32 kB: closed loop (requests/s per core: by the CPU time that the router's
process used), then a fixed rate (p99 over that of asking an upstream directly). Then distinct prompts, for the memory that is kept.
Prints medians, and the ratios of this router to each peer. Everyone routes by cache: warmpath by tokens-less affinity (its default for a
model without a tokenizer) and, as a second arm, with the tokenizer of the tests; the peers with `--policy cache_aware`.
"""
import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
SIZES = (1000, 32000)
RATE = {1000: 200, 32000: 40}
CONNECTIONS = 16


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read()


def family(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [member for child in children for member in family(int(child))]


def cpu_seconds(pid):
    ticks = 0
    for member in family(pid):
        fields = pathlib.Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mb(pid):
    kilobytes = 0
    for member in family(pid):
        for line in pathlib.Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1024


class Router:
    def __init__(self, name, command, port, log):
        self.name, self.port = name, port
        environment = {**os.environ, "RUST_LOG": "warn"}
        self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=environment, start_new_session=True)
        for _ in range(600):
            try:
                body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
                request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"})
                urllib.request.urlopen(request, timeout=5).read()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{name} did not start")

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def routers(venv, warmpath, ports, folder):
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    found = {}
    for name, tokenizer in (("warmpath", False), ("warmpath, tokenizing", True)):
        grpc, http, admin = free_ports(3)
        config = [f'[server]\nlisten = "127.0.0.1:{grpc}"\nhttp_listen = "127.0.0.1:{http}"\nadmin_listen = "127.0.0.1:{admin}"']
        config += [f'[[instances]]\nname = "i{at}"\nurl = "{url}"\nmodel = "m"' for at, url in enumerate(urls)]
        if tokenizer:
            config.append(f'[[tokenizers]]\nmodel = "m"\npath = "{HERE.parent.parent / "tests/data/vllm_render/tools"}"')
        path = folder / f"{http}.toml"
        path.write_text("\n".join(config) + "\n")
        found[name] = ([warmpath, "serve", "--config", path], http)
    for name, more in (("vllm-router", ["--log-level", "warning"]), ("smg launch", ["--log-level", "warn"])):
        port, metrics = free_ports(2)
        command = [venv / "bin" / name.split()[0], *name.split()[1:], "--host", "127.0.0.1", "--port", port, "--worker-urls", *urls]
        found[name.split()[0]] = (command + ["--policy", "cache_aware", "--prometheus-port", metrics, *more], port)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("venv", type=pathlib.Path)
    parser.add_argument("warmpath", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--distinct", type=int, default=20000)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    if not (arguments.venv / "bin" / "smg").exists():
        subprocess.run([sys.executable, "-m", "venv", arguments.venv], check=True)
        subprocess.run([arguments.venv / "bin" / "pip", "install", "-q", "vllm-router==0.1.17", "smg==1.13.0"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tool, log = folder / "overhead", open(folder / "log", "wb")
        subprocess.run(["rustc", "-O", "--edition", "2024", "-o", tool, HERE / "overhead.rs"], check=True)
        ports = free_ports(4)
        upstream = subprocess.Popen([tool, "upstream", *map(str, ports)], stdout=subprocess.PIPE)
        upstream.stdout.readline()
        running = []

        def load(port, requests, rate, size, seed, *more):
            command = [tool, "load", f"127.0.0.1:{port}", CONNECTIONS, requests, rate, size, seed, *more]
            return json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)

        try:
            for name, (command, port) in routers(arguments.venv, arguments.warmpath.resolve(), ports, folder).items():
                if not arguments.only or name in arguments.only:
                    running.append(Router(name, command, port, log))
            start = {router.name: rss_mb(router.process.pid) for router in running}
            figures, balance = {}, {}
            for turn in range(arguments.rounds):
                for size in SIZES:
                    requests = arguments.requests if size == 1000 else arguments.requests // 4
                    direct = load(ports[0], requests // 4, RATE[size], size, turn)["p99"]
                    for router in running:
                        served = [int(get(port, "/served")) for port in ports]
                        before = cpu_seconds(router.process.pid)
                        closed = load(router.port, requests, 0, size, turn)
                        used = cpu_seconds(router.process.pid) - before
                        paced = load(router.port, requests // 4, RATE[size], size, 1000 + turn)
                        if closed["ok"] != closed["requests"] or paced["ok"] != paced["requests"]:
                            sys.exit(f"{router.name} failed: {closed} {paced}")
                        shares = [int(get(port, "/served")) - before for port, before in zip(ports, served)]
                        balance.setdefault(router.name, []).append(max(shares) / (sum(shares) / len(shares)))
                        of = figures.setdefault((size, router.name), {"cpu_us": [], "p50_us": [], "added_p99_us": []})
                        of["cpu_us"].append(used / requests * 1e6)
                        of["p50_us"].append(paced["p50"])
                        of["added_p99_us"].append(paced["p99"] - direct)
            report = {}
            for (size, name), of in figures.items():
                medians = {what: round(statistics.median(values), 1) for what, values in of.items()}
                medians["requests_per_core_second"] = round(1e6 / medians["cpu_us"])
                report.setdefault(f"{size} bytes", {})[name] = medians
            report["busiest to mean"] = {name: round(statistics.median(shares), 2) for name, shares in balance.items()}
            print(json.dumps(report, indent=1), flush=True)
            memory = {}
            for router in running:
                grown = [start[router.name], rss_mb(router.process.pid)]
                # The slowest peer would take an hour for what shows in a part of it.
                for part in range(4):
                    load(router.port, arguments.distinct // 4, 0, 1000, 10_000 + part, "distinct")
                    grown.append(rss_mb(router.process.pid))
                memory[router.name] = [round(megabytes) for megabytes in grown]
                print(router.name, "MB at start, after the load, after each quarter of", arguments.distinct, "distinct prompts:", memory[router.name], flush=True)
        finally:
            for router in running:
                router.stop()
            upstream.kill()


if __name__ == "__main__":
    main()
