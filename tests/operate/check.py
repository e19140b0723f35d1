"""The router under a real Prometheus and a real Chromium, and the Helm chart as Helm renders it. See .ci/operate."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from helm_python import Chart, HelmError
from ruamel.yaml import YAML

WARMPATH = sys.argv[1]
MODEL = "Qwen/Qwen3-32B"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def get(url, key=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.read().decode()


def eventually(what, look, patience=60):
    deadline = time.monotonic() + patience
    while True:
        try:
            found = look()
            if found:
                return found
        except OSError:
            pass
        assert time.monotonic() < deadline, f"{what} did not happen within {patience} s"
        time.sleep(0.2)


def config_check(folder, configuration, environment=None):
    """`warmpath config check` of a file under an environment."""
    file = folder / "warmpath.toml"
    file.write_text(configuration)
    subprocess.run([WARMPATH, "config", "check", "--config", str(file)], check=True, env=os.environ | (environment or {}))


def valid(folder, objects):
    """Kubernetes' own objects, held against its schemas."""
    for position, part in enumerate(objects):
        if "monitoring.coreos.com" not in part:
            file = folder / f"{position}.yaml"
            file.write_text(part)
            subprocess.run(["kubernetes-validate", "--strict", str(file)], check=True, stdout=subprocess.DEVNULL)


def rendered(warmpath, values):
    """The objects that a chart makes of values, and the configuration among them."""
    text = "\n---\n".join(warmpath.render(values).values())
    objects = [part for part in re.split(r"(?m)^---\s*$", text) if re.search(r"(?m)^kind:", part)]
    return objects, re.search(r"warmpath\.toml: \|\n((?: {4}.*\n|\s*\n)+)", text).group(1)


def chart(folder):
    """Rendered with everything on: Kubernetes' own objects are valid, the configuration is, and a bad value is refused."""
    warmpath = Chart.load("deploy/helm/warmpath")
    on = {"enabled": True}
    found = {"port": 8000, "instance": {"model": MODEL, "kv_events_port": 5557}}
    discovery = {"kubernetes": [found | {"service": "vllm"}, found | {"pods": "app=vllm", "namespace": "other"}],
                 "dns": [found | {"name": "vllm.default.svc.cluster.local"}]}
    objects, configuration = rendered(warmpath, {
        "serviceMonitor": on, "prometheusRule": on, "dashboard": on, "autoscaling": on, "discovery": discovery})
    assert len(objects) == 15, len(objects)
    valid(folder, objects)
    kinds = {re.search(r"(?m)^kind: (\S+)", part).group(1) for part in objects}
    asked = {"Deployment", "Service", "ServiceMonitor", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "ServiceAccount"}
    assert asked <= kinds, asked - kinds
    config_check(folder, configuration)

    # With TLS, keys and certificates everywhere: what is mounted is what the configuration names.
    secret = lambda name: {"secret": name}
    secured = {
        "tls": {"http": secret("web") | {"clientCA": "clients"}, "grpc": secret("grpc"), "admin": secret("ops")},
        "keys": {"clients": secret("keys"), "operators": secret("ops-keys")},
        "upstream": {"ca": secret("vllm-ca"), "identity": secret("router"), "apiKey": secret("vllm-key")},
        "config": {"keys": {"concurrent_max": 5}},
        "serviceMonitor": on | {"authorization": {"credentials": {"name": "key", "key": "key"}},
                                "tlsConfig": {"serverName": "warmpath"}},
    }
    objects, configuration = rendered(warmpath, secured)
    valid(folder, objects)
    config_check(folder, configuration)
    deployment = next(part for part in objects if re.search(r"(?m)^kind: Deployment", part))
    mounted = set(re.findall(r"mountPath: (/run/warmpath/[^,]+),", deployment))
    named = {path.rsplit("/", 1)[0] for path in re.findall(r'"(/run/warmpath/[^"]+)"', configuration)}
    assert mounted == named and len(mounted) == 9, (mounted, named)
    assert deployment.count("port: admin, scheme: HTTPS") == 3 and "concurrent_max = 5" in configuration, deployment
    for bad, why in [
        ({"instances": [{"name": "a"}]}, "an instance without a URL"),
        ({"tls": {"admin": {"secret": "a", "clientCA": "b"}}}, "an admin listener that no probe can ask"),
        ({"tls": {"http": {"clientCA": "b"}}}, "clients' authorities without a certificate"),
        ({"keys": {"operators": {"secret": "a"}}, "serviceMonitor": on}, "a ServiceMonitor without a key"),
    ]:
        try:
            warmpath.validate_schema(bad)
            warmpath.render(bad)
        except HelmError:
            continue
        raise AssertionError(f"the chart took {why}")
    print("what the chart renders is valid, and it refuses what cannot work")


def compose(folder):
    """What the compose files configure is valid, alone and secured."""
    load = YAML(typ="safe").load
    plain, secured = [load(pathlib.Path(f"deploy/compose/{name}.yml")) for name in ("compose", "secured")]
    configuration = plain["configs"]["warmpath"]["content"].replace("${WARMPATH_MODEL:-Qwen/Qwen3-8B}", MODEL)
    config_check(folder, configuration)
    config_check(folder, configuration, secured["services"]["warmpath"]["environment"])
    for file in plain, secured:
        prometheus = folder / "prometheus.yml"
        prometheus.write_text(file["configs"]["prometheus"]["content"])
        subprocess.run(["promtool", "check", "config", "--syntax-only", str(prometheus)], check=True,
                       stdout=subprocess.DEVNULL)
    print("what the compose files configure is valid")


def live(folder):
    """Requests through a router, seen by promtool, Prometheus and Chromium, each of which shows an operator's key."""
    made = subprocess.run([WARMPATH, "key", "new", "operator"], check=True, capture_output=True, text=True).stdout
    key, line = made.strip().split("\n")
    ports = {name: free_port() for name in ("mock", "events", "grpc", "http", "admin", "prometheus")}
    (folder / "warmpath.toml").write_text(
        f'[server]\nlisten = "127.0.0.1:{ports["grpc"]}"\nhttp_listen = "127.0.0.1:{ports["http"]}"\n'
        f'admin_listen = "127.0.0.1:{ports["admin"]}"\n[[instances]]\nname = "vllm-0"\nurl = "http://127.0.0.1:{ports["mock"]}"\n'
        f'model = "{MODEL}"\nkv_events = {{ endpoint = "tcp://127.0.0.1:{ports["events"]}" }}\n[keys]\nadmin_lines = "{line}"\n'
    )
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s"},
                "rule_files": [str(pathlib.Path("deploy/prometheus/warmpath.rules.yml").resolve())],
                "scrape_configs": [
                    {
                        "job_name": "warmpath",
                        "authorization": {"credentials": key},
                        "static_configs": [{"targets": [f"127.0.0.1:{ports['admin']}"]}],
                    }
                ],
            }
        )
    )
    prometheus = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    commands = [
        [WARMPATH, "mock-vllm", "--port", str(ports["mock"]), "--kv-events-port", str(ports["events"]), "--model", MODEL],
        [WARMPATH, "serve", "--config", str(folder / "warmpath.toml")],
        [*prometheus, f"--web.listen-address=127.0.0.1:{ports['prometheus']}"],
    ]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    admin = f"http://127.0.0.1:{ports['admin']}"
    try:
        eventually("readiness", lambda: get(f"{admin}/readyz") == "ok\n")
        metrics = lambda: get(f"{admin}/metrics", key)
        try:
            get(f"{admin}/metrics")
        except urllib.error.HTTPError as refused:
            assert refused.code == 401, refused
        else:
            raise AssertionError("nobody was asked for a key")
        body = {"model": MODEL, "prompt": list(range(1000)), "max_tokens": 4}

        def sent():
            url = f"http://127.0.0.1:{ports['http']}/v1/completions"
            request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
            return urllib.request.urlopen(request, timeout=30).status == 200

        eventually("events", lambda: 'warmpath_kv_events_connected{instance="vllm-0"} 1' in metrics())
        eventually("an answer", sent)
        eventually("its blocks", lambda: "\nwarmpath_index_blocks 62\n" in metrics())
        eventually("another answer", sent)
        linted = subprocess.run(["promtool", "check", "metrics"], input=metrics(), text=True, capture_output=True)
        assert linted.returncode == 0 and not linted.stderr, linted

        def query(expression):
            url = f"http://127.0.0.1:{ports['prometheus']}/api/v1/query?query={urllib.parse.quote(expression)}"
            return json.loads(get(url))["data"]["result"]

        found = eventually("a scrape", lambda: query('warmpath_instance_ready{exported_instance="vllm-0"} == 1'))
        assert found[0]["metric"]["job"] == "warmpath", found
        eventually("the requests", lambda: query("warmpath_request_ttft_seconds_count >= 2"))
        assert eventually("up", lambda: query('up{job="warmpath"} == 1'))
        page = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom",
             f"http://anyone:{key}@127.0.0.1:{ports['admin']}/ui"],
            check=True, capture_output=True, text=True, timeout=120,
        ).stdout
        for part in ("1 of 1 ready", "the longest prefix", "992 of 992", "routing.policy", "0 of them held; 0 shed so far", ">live<"):
            assert part in page, f"{part!r} is not on the page:\n{page}"
        print("Prometheus reads it, and Chromium shows it")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=30)


with tempfile.TemporaryDirectory() as scratch:
    chart(pathlib.Path(scratch))
    compose(pathlib.Path(scratch))
with tempfile.TemporaryDirectory() as scratch:
    live(pathlib.Path(scratch))
