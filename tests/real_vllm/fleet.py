"""Real vLLMs and the router in front of them, as processes; and the prompts that both lanes send."""
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import requests

HERE = pathlib.Path(__file__).resolve().parent
BLOCK = 32
MODEL = "tiny"
PREFIX_TOKENS = (96, 160, 224, 320)
TEMPLATE = HERE.parent / "data" / "vllm_render" / "tools" / "chat_template.jinja"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    sys.exit(f"{what} did not happen within {seconds} s")


class Process:
    def __init__(self, name, command, logs, env=None):
        self.name, self.command, self.env = name, [str(part) for part in command], {**os.environ, **(env or {})}
        self.log = open(logs / f"{name}.log", "ab")
        self.start()

    def start(self):
        # A session of its own, so that vLLM's engine process goes with it.
        self.child = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.env, start_new_session=True)

    def end(self, number):
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass
        self.child.wait(60)


class Vllm(Process):
    def __init__(self, name, venv, logs, is_grpc=False, env=None, options=()):
        self.port, self.events = free_port(), None
        while self.events is None or self.events > 65000:
            self.events = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"{'grpc' if is_grpc else 'http'}://{self.address}"
        command = [HERE / "run_vllm_cpu.sh", venv, self.port, self.events, "--enable-prompt-tokens-details"]
        # Tools are rendered, and everything else as by `tests/data/vllm_render/tools`.
        command += [] if is_grpc else ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--chat-template", TEMPLATE]
        command += options
        super().__init__(name, command, logs, {"BLOCKS": "96", **({"GRPC": "1"} if is_grpc else {}), **(env or {})})

    def wait(self):
        wait_for(f"{self.name}'s start", lambda: requests.get(f"{self.url}/health", timeout=2).ok, 600)


class Router(Process):
    def __init__(self, binary, vllms, model_folder, folder, logs, routing=""):
        grpc, http, admin = free_port(), free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{admin}"
        self.address = f"127.0.0.1:{grpc}"
        config = [
            f'[server]\nlisten = "127.0.0.1:{grpc}"\nhttp_listen = "127.0.0.1:{http}"\nadmin_listen = "127.0.0.1:{admin}"',
            f"[health]\ninterval_seconds = 1\n[routing]\nblock_size = {BLOCK}\n{routing}",
        ]
        for vllm in vllms:
            config.append(
                f'[[instances]]\nname = "{vllm.name}"\nurl = "{vllm.url}"\nmodel = "{MODEL}"\n'
                f'kv_events = {{ endpoint = "tcp://127.0.0.1:{vllm.events}", '
                f'replay_endpoint = "tcp://127.0.0.1:{vllm.events + 10}" }}'
            )
        if model_folder:
            config.append(f'[[tokenizers]]\nmodel = "{MODEL}"\npath = "{model_folder}"')
        path = folder / "warmpath.toml"
        path.write_text("\n".join(config) + "\n")
        super().__init__("router", [binary, "serve", "--config", path], logs)

    def instances(self):
        return {one["name"]: one for one in requests.get(f"{self.admin}/instances", timeout=5).json()}

    def wait(self):
        def exact():
            return all(i["knowledge"] == "exact" and i["availability"] == "ready" for i in self.instances().values())

        wait_for("exact knowledge of every instance", exact, 120)


class Mix:
    """Shared prefixes, conversations, exact repeats, salts: prompts of token ids, seeded."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.prefixes = [self.tokens(length) for length in PREFIX_TOKENS]
        self.conversations, self.sent = [], []

    def tokens(self, count):
        return [self.random.randrange(100, 400) for _ in range(count)]

    def next(self):
        draw = self.random.random()
        if draw < 0.35 or not self.sent:
            kind, prompt, salt = "shared prefix", self.random.choice(self.prefixes) + self.tokens(self.random.randint(5, 90)), None
        elif draw < 0.60 and self.conversations:
            conversation = self.random.choice(self.conversations[-6:])
            kind, prompt, salt = "next turn", conversation + self.tokens(self.random.randint(5, 40)), None
        elif draw < 0.80:
            prompt, salt = self.random.choice(self.sent[-12:])
            kind = "exact repeat"
        elif draw < 0.92:
            salt = self.random.choice(["tenant-1", "tenant-2"])
            kind, prompt = "salted", self.random.choice(self.prefixes) + self.tokens(self.random.randint(5, 60))
        else:
            kind, prompt, salt = "all new", self.tokens(self.random.randint(20, 700)), None
        return kind, prompt[:900], salt

    def answered(self, prompt, salt, output):
        self.sent.append((prompt, salt))
        if salt is None:
            self.conversations.append(prompt + output)
