"""OpenSSL's peers against a running `warmpath` with TLS, client certificates and keys: openssl, curl, Python's ssl, grpcio (which
brings BoringSSL) and the official openai client.

Started by `.ci/interop`, with the binary's path as its only argument. Prints a line a check and stops at the first failure.
"""

import asyncio
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import httpx2
import openai
from grpc_health.v1 import health_pb2, health_pb2_grpc

MODEL = "interop"


def check(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"FAILED: {what}: {got!r}, not {wanted!r}")
    print(f"ok: {what}", flush=True)


def until(what, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            print(f"ok: {what}", flush=True)
            return
        time.sleep(0.05)
    raise SystemExit(f"FAILED: {what}, after {seconds} s")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


class Authority:
    """One made by openssl, and what it signs."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.ca = folder / f"{name}.crt"
        made = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                   "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", self.ca)
        check(f"openssl makes {name}", made.returncode, 0)

    def sign(self, name, algorithm):
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        check(f"a request for {name}", run("openssl", "req", "-newkey", *algorithm, "-nodes", "-subj", f"/CN={name}",
                                           "-keyout", key, "-out", request).returncode, 0)
        signed = run("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.folder / f"{self.name}.key",
                     "-CAcreateserial", "-days", "20", "-extfile", extensions, "-out", certificate)
        check(f"{self.name} signs {name}", signed.returncode, 0)
        return certificate, key


def terminate(port, to, certificate, key, clients):
    """OpenSSL's end of TLS before an instance, which asks for a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader, writer):
        there = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)

    async def forever():
        server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(forever()), daemon=True).start()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(binary):
    folder = pathlib.Path(tempfile.mkdtemp())
    ours, clients = Authority(folder, "servers"), Authority(folder, "clients")
    rsa = ours.sign("router", ["rsa:2048"])
    ecdsa = ours.sign("instance", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
    operator = clients.sign("operator", ["ed25519"])
    key, line = run(binary, "key", "new", "team-a").stdout.splitlines()
    other, unlimited = run(binary, "key", "new", "team-b").stdout.splitlines()
    (folder / "keys").write_text(f"{line} tokens_per_minute=50000\n{unlimited}\n")
    http, grpc_port, admin, mock, tls = (free_port() for _ in range(5))
    config = folder / "warmpath.toml"
    config.write_text(f"""
[server]
http_listen = "127.0.0.1:{http}"
listen = "127.0.0.1:{grpc_port}"
admin_listen = "127.0.0.1:{admin}"
[tls]
http = {{ certificate = "{rsa[0]}", key = "{rsa[1]}" }}
grpc = {{ certificate = "{rsa[0]}", key = "{rsa[1]}" }}
admin = {{ certificate = "{rsa[0]}", key = "{rsa[1]}", client_ca = "{clients.ca}" }}
reload_seconds = 1
[upstream]
ca = "{ours.ca}"
certificate = "{operator[0]}"
key = "{operator[1]}"
[keys]
file = "{folder / 'keys'}"
[[instances]]
name = "a"
url = "https://localhost:{tls}"
model = "{MODEL}"
""")
    check("the configuration is valid", run(binary, "config", "check", "--config", config).returncode, 0)
    started = [subprocess.Popen([binary, "mock-vllm", "--model", MODEL, "--port", str(mock), "--kv-events-port",
                                 str(free_port()), "--speed", "100"])]
    terminate(tls, mock, *ecdsa, clients.ca)
    started.append(subprocess.Popen([binary, "serve", "--config", config]))
    try:
        peers(folder, ours, operator, key, other, http, grpc_port, admin)
    finally:
        for process in started:
            process.terminate()


def peers(folder, ours, operator, key, other, http, grpc_port, admin):
    until("it listens", lambda: listens(admin))
    for protocol, agreed in (("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")):
        for version in ("-tls1_2", "-tls1_3"):
            said = run("openssl", "s_client", "-connect", f"127.0.0.1:{http}", "-CAfile", ours.ca, "-verify_return_error",
                       "-alpn", protocol, version, "-ign_eof", "-no_ign_eof")
            check(f"openssl s_client {version} agrees on {agreed}", f"ALPN protocol: {agreed}" in said.stdout, True)
    old = run("openssl", "s_client", "-connect", f"127.0.0.1:{http}", "-CAfile", ours.ca, "-tls1_1", "-no_ign_eof")
    check("openssl s_client -tls1_1 is refused", old.returncode != 0, True)

    curl = ["curl", "-s", "--max-time", "10", "-o", folder / "said", "-w", "%{http_code} %{http_version}"]
    models = f"https://localhost:{http}/v1/models"
    bearer = f"Authorization: Bearer {key}"
    admin_page = ["--cacert", ours.ca, f"https://localhost:{admin}/readyz"]
    identity = ["--cert", operator[0], "--key", operator[1]]
    until("an instance is ready, over TLS that asks for a certificate",
          lambda: run(*curl, *identity, *admin_page).stdout.startswith("200"))
    for flag, version in (("--http2", "2"), ("--http1.1", "1.1")):
        check(f"curl {flag} --cacert", run(*curl, flag, "--cacert", ours.ca, "-H", bearer, models).stdout, f"200 {version}")
    check("curl without a key", run(*curl, "--cacert", ours.ca, "--http1.1", models).stdout, "401 1.1")
    check("curl without the authority", run(*curl, models).returncode, 60)
    check("curl without --cert at the admin listener", run(*curl, *admin_page).returncode != 0, True)

    with open(ours.ca, "rb") as ca:
        channel = grpc.secure_channel(f"localhost:{grpc_port}", grpc.ssl_channel_credentials(ca.read()))
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    check("grpcio asks for health over TLS, without a key", health.status, health_pb2.HealthCheckResponse.SERVING)
    instances = channel.unary_unary("/warmpath.v1.Router/Instances")
    try:
        instances(b"", timeout=10)
        raise SystemExit("FAILED: grpcio is let in without a key")
    except grpc.RpcError as refused:
        check("grpcio without a key", refused.code(), grpc.StatusCode.UNAUTHENTICATED)
    for metadata in (("authorization", f"Bearer {key}"), ("x-api-key", key)):
        check(f"grpcio with {metadata[0]}", b"interop" in instances(b"", metadata=[metadata], timeout=10), True)

    def client(api_key):
        context = ssl.create_default_context(cafile=ours.ca)
        return openai.OpenAI(base_url=f"https://localhost:{http}/v1", api_key=api_key, max_retries=0,
                             http_client=httpx2.Client(verify=context))

    # Ids rather than a text: there is no tokenizer here.
    answered = client(key).completions.create(model=MODEL, prompt=list(range(100)), max_tokens=5)
    check("the openai client over https", (answered.usage.prompt_tokens, answered.usage.completion_tokens), (100, 5))
    streamed = client(key).completions.create(model=MODEL, prompt=list(range(100)), max_tokens=5, stream=True)
    check("it streams", len([chunk for chunk in streamed if chunk.choices]) >= 5, True)
    try:
        client("wp-wrong").completions.create(model=MODEL, prompt=[1], max_tokens=1)
        raise SystemExit("FAILED: the openai client is let in with a wrong key")
    except openai.AuthenticationError as refused:
        check("it knows a refusal", json.loads(refused.response.text)["error"]["code"], 401)
    try:
        for _ in range(5):
            client(key).completions.create(model=MODEL, prompt=list(range(30_000)), max_tokens=1)
        raise SystemExit("FAILED: the openai client is let in beyond its tokens")
    except openai.RateLimitError as refused:
        check("it is told when to come again", int(refused.response.headers["retry-after"]) >= 1, True)

    before = run("openssl", "s_client", "-connect", f"127.0.0.1:{http}", "-no_ign_eof").stdout
    ours.sign("router", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
    until("a new certificate is shown without a restart",
          lambda: run("openssl", "s_client", "-connect", f"127.0.0.1:{http}", "-no_ign_eof").stdout.split("Server certificate")[-1][:600]
          != before.split("Server certificate")[-1][:600])
    check("and believed", run(*curl, "--cacert", ours.ca, "-H", f"x-api-key: {other}", "--http2", models).stdout, "200 2")
    metrics = ["--cacert", ours.ca, f"https://localhost:{admin}/metrics"]
    run(*curl, *identity, *metrics)
    page = (folder / "said").read_text()
    check("nothing secret is on the page", key in page or "BEGIN" in page, False)


main(sys.argv[1])
print("all peers agree")
