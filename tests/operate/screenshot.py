"""The README's picture of /ui: a router in front of four busy stand-ins for vLLM, in a real Chromium.

    python3 tests/operate/screenshot.py target/release/warmpath deploy/ui.png
"""

import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

WARMPATH, PICTURE = sys.argv[1:]
MODEL = "Qwen/Qwen3-32B"
TRACE = "tests/data/mooncake/conversation_trace.jsonl.gz"
MOCKS = 4
# Long enough for a line in each chart.
BUSY_S = 150


def ports(count):
    import socket

    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return numbers


def main(folder):
    free = iter(ports(3 + 2 * MOCKS))
    grpc, http, admin = next(free), next(free), next(free)
    file = f'[server]\nlisten = "127.0.0.1:{grpc}"\nhttp_listen = "127.0.0.1:{http}"\nadmin_listen = "127.0.0.1:{admin}"\n'
    # Little room, so that requests wait for it.
    file += "[admission]\nprefill_tokens_max = 30000\n"
    commands = []
    for number in range(MOCKS):
        port, events = next(free), next(free)
        file += f'[[instances]]\nname = "vllm-{number}"\nurl = "http://127.0.0.1:{port}"\nmodel = "{MODEL}"\n'
        file += f'kv_events = {{ endpoint = "tcp://127.0.0.1:{events}" }}\n'
        commands.append(["mock-vllm", "--port", str(port), "--kv-events-port", str(events), "--model", MODEL])
    (folder / "warmpath.toml").write_text(file)
    commands.append(["serve", "--config", str(folder / "warmpath.toml")])
    load = ["load", TRACE, "--model", MODEL, "--url", f"http://127.0.0.1:{http}", "--block-size", "512", "--time-scale", "0.7"]
    running = [subprocess.Popen([WARMPATH, *command], stderr=subprocess.DEVNULL) for command in commands]
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, "the router was not ready in time"
                time.sleep(0.2)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen([WARMPATH, *load], **quiet))
        time.sleep(BUSY_S)
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
             "--window-size=1280,1120", "--virtual-time-budget=6000", f"--screenshot={PICTURE}", f"http://127.0.0.1:{admin}/ui"],
            check=True, timeout=120, **quiet,
        )
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


with tempfile.TemporaryDirectory() as scratch:
    main(pathlib.Path(scratch))
