"""Real peers against a running `warmpath`: grpcio (with reflection), libzmq and msgspec.

Started by `.ci/interop`, with the binary's path as its only argument. Prints a line a check and stops at the first failure.
"""

import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
import msgspec
import zmq
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

MODEL = "interop"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            print(f"ok: {what}", flush=True)
            return value
        time.sleep(0.02)
    raise SystemExit(f"FAILED: {what}, after {seconds} s")


def check(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"FAILED: {what}: {got!r}, not {wanted!r}")
    print(f"ok: {what}", flush=True)


class Router:
    """warmpath.v1.Router, known from reflection alone."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def call(self, method, **fields):
        descriptor = self.pool.FindServiceByName("warmpath.v1.Router").FindMethodByName(method)
        request = GetMessageClass(descriptor.input_type)
        response = GetMessageClass(descriptor.output_type)
        send = self.channel.unary_unary(
            f"/warmpath.v1.Router/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return send(request(**fields), timeout=5)


def stored(hashes, tokens, parent=None):
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * len(hashes),
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }


def main(warmpath):
    ports = {name: free_port() for name in ("grpc", "admin", "http", "events", "libzmq")}
    config = f"""
[server]
listen = "127.0.0.1:{ports['grpc']}"
admin_listen = "127.0.0.1:{ports['admin']}"
http_listen = "127.0.0.1:0"
[[instances]]
name = "mock"
url = "http://127.0.0.1:{ports['http']}"
model = "{MODEL}"
kv_events = {{ endpoint = "tcp://127.0.0.1:{ports['events']}" }}
[[instances]]
name = "libzmq"
url = "http://127.0.0.1:1"
model = "{MODEL}"
kv_events = {{ endpoint = "tcp://127.0.0.1:{ports['libzmq']}", topic = "kv-events" }}
"""
    context = zmq.Context()
    publisher = context.socket(zmq.XPUB)
    publisher.setsockopt(zmq.HEARTBEAT_IVL, 200)
    publisher.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
    publisher.bind(f"tcp://127.0.0.1:{ports['libzmq']}")
    subscriber = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    subscriber.setsockopt(zmq.RCVTIMEO, 10_000)

    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        mock = [warmpath, "mock-vllm", "--port", str(ports["http"]), "--kv-events-port", str(ports["events"])]
        processes = [
            subprocess.Popen([*mock, "--model", MODEL, "--speed", "20"]),
            subprocess.Popen([warmpath, "serve", "--config", file.name]),
        ]
        try:
            run(ports, publisher, subscriber)
        finally:
            for process in processes:
                process.terminate()
            codes = [process.wait(timeout=15) for process in processes]
    check("both end well on SIGTERM", codes, [0, 0])


def run(ports, publisher, subscriber):
    admin = f"http://127.0.0.1:{ports['admin']}"

    def instances():
        with urllib.request.urlopen(f"{admin}/instances", timeout=5) as answer:
            return {instance["name"]: instance for instance in json.load(answer)}

    check("libzmq hears our subscription", publisher.recv() if publisher.poll(10_000) else None, b"\x01kv-events")
    until("both publishers are connected", lambda: all(i["kv_events_connected"] for i in instances().values()))

    shaken = subscriber.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    subscriber.connect(f"tcp://127.0.0.1:{ports['events']}")
    check("libzmq shakes hands with the mock", shaken.poll(10_000), zmq.POLLIN)

    router = Router(f"127.0.0.1:{ports['grpc']}")
    until("grpcio reflects the service", lambda: "warmpath.v1.Router" in router.database.get_services())
    health = health_pb2_grpc.HealthStub(router.channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    check("grpc.health.v1 says serving", health.status, health_pb2.HealthCheckResponse.SERVING)

    for sequence in range(200):
        tokens = list(range(sequence * 16, sequence * 16 + 16))
        event = stored([sequence + 1], tokens, parent=sequence or None)
        payload = msgspec.msgpack.encode([time.time(), [event], 0])
        publisher.send_multipart([b"kv-events", struct.pack(">Q", sequence), payload])
    until("200 batches of a libzmq publisher with heartbeats", lambda: instances()["libzmq"]["cached_blocks"] == 200)
    check("nothing was lost", instances()["libzmq"]["knowledge"], "exact")
    routed = router.call("Route", model=MODEL, token_ids=list(range(3201)))
    check("the prompt goes to who has it", (routed.instance, routed.overlap_tokens), ("libzmq", 3200))
    router.call("Complete", request_id=routed.request_id, outcome=2)
    try:
        router.call("Complete", request_id=routed.request_id, outcome=2)
        raise SystemExit("FAILED: a request was completed twice")
    except grpc.RpcError as error:
        check("a request ends once", error.code(), grpc.StatusCode.NOT_FOUND)

    prompt = list(range(50_000, 50_100))
    body = json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": 4}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{ports['http']}/v1/completions", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        check("the mock counts as vLLM does", json.load(answer)["usage"]["prompt_tokens"], 100)
    topic, sequence, payload = subscriber.recv_multipart()
    seconds, events, rank = msgspec.msgpack.decode(payload)
    check("libzmq takes the mock's events", (topic, struct.unpack(">Q", sequence), rank), (b"", (0,), 0))
    check("msgspec reads them", (events[0]["type"], events[0]["token_ids"]), ("BlockStored", prompt[:96]))
    until("the router reads them, too", lambda: instances()["mock"]["cached_blocks"] == 6)
    routed = router.call("Route", model=MODEL, token_ids=prompt)
    check("and goes by them", (routed.instance, routed.overlap_tokens), ("mock", 96))


if __name__ == "__main__":
    main(sys.argv[1])
