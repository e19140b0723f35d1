#!/usr/bin/env python3
"""Write the token ids that a real vLLM renders for a corpus of requests into tests/data/vllm_render.

    VENV/bin/python goldens.py VENV

Starts vLLM's render server (`vllm launch render`: no engine, no GPU) for each folder there, with a small tokenizer and the folder's
own chat template, and asks `/v1/*/render`. What it says is kept in `cases.jsonl`; the ordinary tests compare the router's own ids
with it, and need no vLLM.
"""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import requests

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "vllm_render"

UNICODE = "Zażółć gęślą jaźń; 你好,世界; مرحبا; 🦀🦀 e\u0301 \u00a0\u200b \r\n\t\"quoted\" \\back\\ <a> & 'b'"
SPECIAL = "def add(a, b):\n    return a + b  # <|im_end|> inside a text <|im_start|>user\n<s></s>"
SYSTEM = "You are a helpful assistant. Answer the question with one short sentence."
LONG = "once upon a time there was a small machine which dreamed of electric sheep under a blue sky. " * 120
WEATHER = {
    "name": "get_weather", "description": "The weather at a place, in °C <now> & 'here'",
    "parameters": {"type": "object", "properties": {"zone": {"type": "string", "enum": ["b", "a"]}, "at": {"type": "number", "default": 1.5}}, "required": ["zone"]},
}
BARE = {"name": "now"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"zone\": \"a\", \"at\": 2.0, \"b\": [1, null, true, \"ż\"]}"}}


def chats():
    user = {"role": "user", "content": "What is the capital of France?"}
    system = {"role": "system", "content": SYSTEM}
    yield {"messages": [user]}
    yield {"messages": [system, user]}
    yield {"messages": [system, user, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "  And of Italy?\n\n"}]}
    for text in (UNICODE, SPECIAL, LONG, " ", "   spaces   and\n\n\nlines, 1234567890 $%&'()*+ don't it's I'LL "):
        yield {"messages": [system, {"role": "user", "content": text}]}
    yield {"messages": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "mood": "glad"}]}]}
    yield {"messages": [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}, {"role": "user", "content": [{"type": "text", "text": UNICODE}]}]}
    yield {"messages": [{"role": "user", "name": "ann", "content": "hi"}]}
    yield {"messages": [{"role": "developer", "content": "Be brief."}, user]}
    yield {"messages": [system, {"role": "developer", "content": "Be brief."}, user]}
    yield {"messages": [system, user], "add_generation_prompt": False}
    yield {"messages": [system, user, {"role": "assistant", "content": "It is  "}], "add_generation_prompt": False, "continue_final_message": True}
    yield {"messages": [user], "chat_template_kwargs": {"enable_thinking": False}}
    yield {"messages": [user], "reasoning_effort": "low"}
    yield {"messages": [user], "reasoning_effort": "none"}
    yield {"messages": [user], "documents": [{"title": "A", "text": "a"}]}
    yield {"messages": [user], "add_special_tokens": True}
    yield {"messages": [{"role": "system", "content": "x-anthropic-billing-header: cch=1\nrest"}, user]}
    tools = [{"type": "function", "function": WEATHER}, {"type": "function", "function": BARE}]
    yield {"messages": [user], "tools": tools}
    yield {"messages": [system, user], "tools": tools, "tool_choice": "none"}
    yield {"messages": [user], "tools": [{"type": "function", "function": {"strict": True, "parameters": {}, "name": "f", "x": 1}, "y": 2}]}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answered = {"role": "tool", "tool_call_id": "call_1", "content": "{\"t\": 21}"}
    yield {"messages": [system, user, called, answered], "tools": tools}
    yield {"messages": [user, {**called, "content": "Let me see."}, answered, {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "tools": tools}
    for arguments in ("", "[1]", "{broken", "{}"):
        call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}}
        yield {"messages": [user, {"role": "assistant", "tool_calls": [call]}, {**answered, "tool_call_id": "c"}], "tools": tools}
    yield {"messages": [user, {"role": "assistant", "content": "x", "tool_calls": []}, user]}
    yield {"messages": [user, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nParis.", "refusal": None}, user]}
    yield {"messages": [user, {"role": "assistant", "content": "Paris.", "reasoning": "I know it."}, user]}
    yield {"messages": [user, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, user]}


def responses():
    user = {"role": "user", "content": "What is the capital of France?"}
    yield {"input": "once upon a time"}
    yield {"input": UNICODE, "instructions": SYSTEM}
    yield {"input": [user], "instructions": SYSTEM}
    yield {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]}]}
    said = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [{"type": "output_text", "text": "Paris.", "annotations": []}]}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "I know it."}]}
    called = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{\"zone\": \"a\", \"at\": 2.0}"}
    answered = {"type": "function_call_output", "call_id": "call_1", "output": "21"}
    yield {"input": [user, said, user]}
    yield {"input": [user, {"role": "assistant", "content": "Paris."}, user]}
    yield {"input": [user, thought, said, user]}
    yield {"input": [user, {**thought, "content": None, "summary": [{"type": "summary_text", "text": "Short."}]}, said, user]}
    tools = [{"type": "function", **WEATHER, "strict": True}, {"type": "function", "name": "now", "parameters": {}}]
    yield {"input": "hi", "tools": tools}
    yield {"input": [user, thought, called, answered], "tools": tools}
    yield {"input": [user, called, {**called, "call_id": "call_2"}, answered, {**answered, "call_id": "call_2", "output": "22"}, said, user], "tools": tools}
    yield {"input": [{"role": "developer", "content": "Be brief."}, user], "reasoning": {"effort": "high"}}
    yield {"input": [user, {**said, "status": "incomplete"}]}


def messages():
    user = {"role": "user", "content": "What is the capital of France?"}
    tools = [{"name": "get_weather", "description": "The weather", "input_schema": WEATHER["parameters"]}, {"name": "now", "input_schema": {"properties": {}}}]
    used = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm. ", "signature": "s"}, {"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"zone": "a", "at": 1}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "21 °C"}, {"type": "text", "text": "And?"}]}
    yield {"messages": [user]}
    yield {"messages": [user, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": UNICODE}], "system": SYSTEM}
    yield {"messages": [user], "system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}, {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": " More."}]}
    yield {"messages": [{"role": "user", "content": [{"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "two"}]}]}
    yield {"messages": [user, used, result], "tools": tools, "system": SYSTEM}
    yield {"messages": [user, {**used, "content": used["content"][2:]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}], "tools": tools}
    yield {"messages": [user, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "now", "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}], "tools": tools, "tool_choice": {"type": "auto"}}
    yield {"messages": [user, {"role": "assistant", "content": "a"}, {"role": "system", "content": "A reminder."}, user], "system": SYSTEM}
    yield {"messages": [user], "thinking": {"type": "disabled"}}
    yield {"messages": [user], "output_config": {"effort": "high"}}
    yield {"messages": [user], "chat_template_kwargs": {"enable_thinking": False}}


def completions():
    for text in ("once upon a time", UNICODE, SPECIAL, LONG, " leading", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "\n\n  x"):
        yield {"prompt": text}
    yield {"prompt": ["once upon a time"]}
    yield {"prompt": "once upon a time", "add_special_tokens": False}


CORPUS = {
    "/v1/chat/completions": chats, "/v1/responses": responses, "/v1/messages": messages, "/v1/completions": completions,
}


def token_ids(answer):
    answer = answer[0] if isinstance(answer, list) else answer
    return answer["token_ids"]


def write_model(venv, folder, model):
    command = [venv / "bin" / "python", HERE / "make_tiny_model.py", model, "--vocab", "600", "--max-len", "8192"]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    if folder.name == "parts":
        # As Llama's: <s> before every text that is given special tokens.
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    for path in (model, folder):
        (path / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
        (path / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (model / "chat_template.jinja").write_text((folder / "chat_template.jinja").read_text())


def main():
    venv = pathlib.Path(sys.argv[1]).resolve()
    for folder in sorted(path for path in DATA.iterdir() if path.is_dir()):
        with tempfile.TemporaryDirectory() as model, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            write_model(venv, folder, pathlib.Path(model))
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1"}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            command = [venv / "bin" / "vllm", "launch", "render", model, "--served-model-name", "m", "--host", "127.0.0.1", "--port", port]
            command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
            log = open(pathlib.Path(model) / "log", "wb")
            server = subprocess.Popen([str(part) for part in command], env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                for _ in range(1200):
                    try:
                        if requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok:
                            break
                    except requests.RequestException:
                        time.sleep(0.25)
                else:
                    sys.exit((pathlib.Path(model) / "log").read_text())
                lines = []
                for path, cases in CORPUS.items():
                    for body in cases():
                        body = {"model": "m", **body} | ({"max_tokens": 8} if path == "/v1/messages" else {})
                        answer = requests.post(f"http://127.0.0.1:{port}{path}/render", json=body, timeout=60)
                        case = {"path": path, "body": body}
                        if answer.ok:
                            case["token_ids"] = token_ids(answer.json())
                        else:
                            case["refused"] = answer.status_code
                            print(folder.name, path, json.dumps(body)[:200], answer.text[:300])
                        lines.append(json.dumps(case, ensure_ascii=False))
                (folder / "cases.jsonl").write_text("\n".join(lines) + "\n")
                print(folder.name, len(lines), "cases")
            finally:
                os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
