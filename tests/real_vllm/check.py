#!/usr/bin/env python3
"""Two real vLLMs (CPU, tiny random model), the router in front: is what it predicts what they report?

    check.py --venv VENV --warmpath BINARY [--requests 500] [--seed 1] [--only http|grpc] [--keep-logs DIR]

Sends a seeded mix of requests through the router, one after another, and compares the router's predicted overlap (header
x-warmpath-overlap-tokens) with the cached_tokens that vLLM reports in the same answer. On the way prefix caches are reset, an
instance is killed and restarted, and the router is restarted, to learn everything anew by replay. Then the official openai
client, streaming and not, and `vllm serve --grpc` in the place of one of the two. Fails below 99 % equal predictions. Run with the
Python of VENV: it has requests, openai and grpcio.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import requests

import grpc_engine
from fleet import MODEL, TEMPLATE, Mix, Router, Vllm, wait_for


def complete(session, url, prompt, salt, stream, max_tokens):
    body = {
        "model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True, "stream": stream,
    }
    if salt:
        body["cache_salt"] = salt
    if stream:
        body["stream_options"] = {"include_usage": True}
    answer = session.post(f"{url}/v1/completions", json=body, timeout=120, stream=stream)
    if answer.status_code != 200:
        return answer, None, None
    if not stream:
        answer_body = answer.json()
        return answer, answer_body["usage"], answer_body["choices"][0]["token_ids"]
    usage, output, done = None, [], False
    for line in answer.iter_lines():
        if line == b"data: [DONE]":
            done = True
        elif line.startswith(b"data: "):
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                output += choice.get("token_ids") or []
    assert done, "a stream ended without [DONE]"
    return answer, usage, output


def run_mix(arguments, vllms, router):
    mix, session = Mix(arguments.seed), requests.Session()
    kinds, wrong, at = collections.Counter(), [], 0
    equal, cached, prompt_tokens, by_instance, restarting = 0, 0, 0, collections.Counter(), None
    n = arguments.requests
    events = {n * 3 // 10: "reset", n * 5 // 10: "reset", n * 6 // 10: "kill", n * 8 // 10: "router"}
    while at < n:
        what = events.pop(at, None)
        if what == "reset":
            for vllm in vllms:
                requests.post(f"{vllm.url}/reset_prefix_cache", timeout=10).raise_for_status()
        elif what == "kill":
            vllms[0].end(signal.SIGKILL)
            wait_for("its going noticed", lambda: router.instances()[vllms[0].name]["availability"] == "down", 30)
            vllms[0].start()
            restarting = at + n // 10
        elif what == "router":
            router.end(signal.SIGTERM)
            router.start()
            router.wait()
        if restarting == at:
            vllms[0].wait()
            router.wait()
            restarting = None
        kind, prompt, salt = mix.next()
        answer, usage, output = complete(session, router.url, prompt, salt, at % 2 == 0, mix.random.randint(1, 40))
        if usage is None:
            sys.exit(f"request {at} ({kind}): {answer.status_code} {answer.text}")
        predicted = int(answer.headers["x-warmpath-overlap-tokens"])
        reported = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        kinds[kind] += 1
        by_instance[answer.headers["x-warmpath-instance"]] += 1
        cached += reported
        prompt_tokens += len(prompt)
        if predicted == reported:
            equal += 1
        else:
            wrong.append({"request": at, "kind": kind, "predicted": predicted, "reported": reported})
        mix.answered(prompt, salt, output)
        at += 1
        # vLLM publishes a step's events after it, so they race the next request of a client that waits for nothing.
        time.sleep(arguments.pause)
    metrics = requests.get(f"{router.admin}/metrics", timeout=10).text
    return {
        "requests": n, "equal": equal, "share": equal / n, "wrong": wrong, "kinds": dict(kinds), "by_instance": dict(by_instance),
        "prompt_tokens": prompt_tokens, "cached_tokens": cached, "pause_seconds": arguments.pause,
        "replays": [line for line in metrics.splitlines() if line.startswith("warmpath_kv_event_replays_total")],
    }


def run_bursts(arguments, router, bursts=20):
    """Three requests at once with one prefix that nobody has: what is in flight counts as overlap, and vLLM shares it too."""
    mix, equal, sent, wrong = Mix(arguments.seed + 1), 0, 0, []
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for _ in range(bursts):
            prefix = mix.tokens(160)
            calls = [pool.submit(complete, requests, router.url, prefix + mix.tokens(40), None, False, 4) for _ in range(3)]
            for answer, usage, _ in (call.result() for call in calls):
                predicted = int(answer.headers["x-warmpath-overlap-tokens"])
                reported = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                sent += 1
                equal += predicted == reported
                wrong += [(predicted, reported)] if predicted != reported else []
    return {"in bursts": sent, "equal": equal, "wrong (predicted, reported)": wrong[:6]}


TEXTS = [
    "once upon a time there was a small machine which dreamed of electric sheep under a blue sky ",
    "Zażółć gęślą jaźń; 你好,世界; مرحبا بالعالم; 🦀🦀 e\u0301 \u00a0\u200b \r\n\t\"quoted\" \\back\\ ",
    "def add(a, b):\n    return a + b  # <|im_end|> inside a text <|im_start|>user\n",
    "   spaces   and\n\n\nlines, 1234567890 $%&'()*+ don't it's I'LL ",
]
SYSTEMS = ["You are a helpful assistant. " * 6, TEXTS[1] * 2]


TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather <now> & 'here'", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}, "at": {"type": "number"}}}}},
]


def text_request(chance, what, chats):
    """A path, a body, and the conversation that it goes on with, if it does."""
    text = chance.choice(TEXTS)
    if what == "completions":
        return "/v1/completions", {"prompt": text * chance.randint(1, 3) + str(chance.randint(0, 9)), "max_tokens": 3}, None
    chat = chance.choice(chats)
    if what == "chat":
        content = [{"type": "text", "text": text}, {"type": "text", "text": "and more"}] if chance.random() < 0.3 else text
        chat.append({"role": "user", "content": content})
        tools = {"tools": TOOLS, "tool_choice": "none"} if chat[0]["content"] is SYSTEMS[0] else {}
        return "/v1/chat/completions", {"messages": chat, "max_tokens": 3, **tools}, chat
    # The other two APIs know no parts of that kind and no system among the messages.
    plain = [one for one in chat[1:] if isinstance(one["content"], str)] + [{"role": "user", "content": text}]
    if what == "responses":
        return "/v1/responses", {"input": plain, "instructions": chat[0]["content"], "max_output_tokens": 3, "store": False}, None
    tools = [{"name": one["function"]["name"], "input_schema": one["function"]["parameters"]} for one in TOOLS]
    return "/v1/messages", {"messages": plain, "system": chat[0]["content"], "max_tokens": 3, "tools": tools, "tool_choice": {"type": "none"}}, None


def said_usage(what, said):
    """Prompt tokens, and those of them that were cached."""
    usage = said["usage"]
    if what == "messages":
        cached = usage.get("cache_read_input_tokens") or 0
        return usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0), cached
    if what == "responses":
        return usage["input_tokens"], (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
    return usage["prompt_tokens"], (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def run_texts(router, seed, count):
    """Texts and chats, growing by turns: the tokens are the router's own, so a wrong one shows as a wrong overlap or length."""
    chance, session, wrong, cached_tokens, same_length = random.Random(seed), requests.Session(), [], 0, 0
    equal, sent = collections.Counter(), collections.Counter()
    chats = [[{"role": "system", "content": system}] for system in SYSTEMS]
    for at in range(count):
        what = ("completions", "chat", "chat", "responses", "messages")[at % 5]
        path, body, chat = text_request(chance, what, chats)
        # Responses of vLLM have no ignore_eos.
        body |= {"model": MODEL, "temperature": 0} | ({} if what in ("responses", "messages") else {"ignore_eos": True})
        answer = session.post(router.url + path, json=body, timeout=120)
        if answer.status_code == 400:
            for one in chats:
                one[1:] = []  # too long for the model: the conversations begin anew
            continue
        said = answer.json()
        tokens, cached = said_usage(what, said)
        predicted = answer.headers.get("x-warmpath-prompt-tokens"), answer.headers.get("x-warmpath-overlap-tokens")
        cached_tokens += cached
        sent[what] += 1
        same_length += predicted[0] == str(tokens)
        if predicted == (str(tokens), str(cached)):
            equal[what] += 1
        else:
            wrong.append({"path": path, "predicted": predicted, "reported": (tokens, cached), "body": body})
        if chat:
            chat.append({"role": "assistant", "content": said["choices"][0]["message"]["content"] or ""})
        time.sleep(0.02)
    share = equal.total() / sent.total()
    return {
        "texts and chats": dict(sent), "same length": same_length, "equal": dict(equal), "share": share, "cached_tokens": cached_tokens,
        "wrong": wrong[:3],
    }


def check_openai(url):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    assert MODEL in [model.id for model in client.models.list()]
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Why is the sky blue?"}]
    whole = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=12, temperature=0)
    assert whole.usage.completion_tokens >= 1 and whole.choices[0].message.content is not None
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content, "streamed and not, the same prompt gives another text"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    completion = client.completions.create(model=MODEL, prompt=list(range(300, 340)), max_tokens=5)
    assert completion.usage.prompt_tokens == 40
    pieces = list(client.completions.create(model=MODEL, prompt="once upon a time", max_tokens=5, stream=True))
    assert pieces[-1].choices[0].finish_reason in ("length", "stop")
    response = client.responses.create(model=MODEL, input="once upon a time", max_output_tokens=16)
    assert response.id
    for call, expected in [
        (lambda: client.chat.completions.create(model="nobody", messages=messages), openai.NotFoundError),
        (lambda: client.completions.create(model=MODEL, prompt=[300] * 5000), openai.BadRequestError),
    ]:
        try:
            call()
        except expected:
            continue
        raise AssertionError(f"{expected.__name__} was expected")
    return openai.__version__


def over_http(arguments, vllms, tokenizer, folder, logs, running):
    router = Router(arguments.warmpath.resolve(), vllms, tokenizer, folder, logs)
    running.append(router)
    router.wait()
    client = check_openai(router.url)
    print(f"openai {client}: models, chat, completions, responses, streaming and not, errors: as ever", flush=True)
    texts = run_texts(router, arguments.seed, arguments.requests // 5)
    print(json.dumps(texts, indent=1, ensure_ascii=False), flush=True)
    figures = run_mix(arguments, vllms, router)
    print(json.dumps(figures, indent=1), flush=True)
    print(json.dumps(run_bursts(arguments, router)), flush=True)
    router.end(signal.SIGTERM)
    if texts["same length"] < sum(texts["texts and chats"].values()):
        sys.exit(f"only {texts['same length']} texts and chats were tokenized as vLLM does")
    # A long chat in the small pool may meet an eviction that is not yet published.
    if texts["share"] < 0.97:
        sys.exit(f"only {texts['share']:.2%} of the texts' and chats' overlaps were equal to what vLLM reported")
    if figures["share"] < 0.99:
        sys.exit(f"only {figures['share']:.2%} of the predictions were equal to what vLLM reported")


def over_grpc(arguments, beside, folder, logs, running):
    engine = Vllm("g", arguments.venv, logs, is_grpc=True)
    running.append(engine)
    grpc_engine.wait(engine)
    router = Router(arguments.warmpath.resolve(), [beside, engine], None, folder, logs)
    running.append(router)
    router.wait()
    figures = grpc_engine.run(arguments.seed, arguments.requests // 5, arguments.pause, router, engine)
    print(json.dumps(figures, indent=1), flush=True)
    if figures["share"] < 0.99:
        sys.exit(f"only {figures['share']:.2%} of the predictions over gRPC were equal to what vLLM reported")
    if figures["texts equal"] < figures["texts"]:
        sys.exit(f"only {figures['texts equal']} of {figures['texts']} texts over gRPC were tokenized as vLLM does")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--warmpath", type=pathlib.Path, required=True)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between an answer and the next request")
    parser.add_argument("--only", choices=("http", "grpc"), help="one half of it")
    parser.add_argument("--keep-logs", type=pathlib.Path)
    arguments = parser.parse_args()
    running = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        logs = arguments.keep_logs or folder
        logs.mkdir(parents=True, exist_ok=True)
        try:
            vllms = [Vllm(name, arguments.venv, logs) for name in (("a",) if arguments.only == "grpc" else ("a", "b"))]
            running += vllms
            for vllm in vllms:
                vllm.wait()
            # The model's tokenizer beside the template that the vLLMs were given.
            tokenizer = folder / "tokenizer"
            shutil.copytree((arguments.venv / "tiny-model").resolve(), tokenizer)
            shutil.copy(TEMPLATE, tokenizer / "chat_template.jinja")
            if arguments.only != "grpc":
                over_http(arguments, vllms, tokenizer, folder, logs, running)
            if arguments.only != "http":
                # Memory is short where this runs, so the one over gRPC takes the place of one of the two.
                if len(vllms) == 2:
                    vllms[1].end(signal.SIGKILL)
                over_grpc(arguments, vllms[0], folder, logs, running)
        finally:
            for process in running:
                process.end(signal.SIGTERM if process.name == "router" else signal.SIGKILL)


if __name__ == "__main__":
    main()
