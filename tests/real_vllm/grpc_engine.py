"""`vllm serve --grpc` behind the router, asked with grpcio and the protocol's own stubs (smg-grpc-proto, which vLLM installs)."""
import time

import grpc
import requests
from smg_grpc_proto.generated import vllm_engine_pb2 as engine
from smg_grpc_proto.generated.vllm_engine_pb2_grpc import VllmEngineStub

from fleet import MODEL, Mix, wait_for


def stub(address):
    return VllmEngineStub(grpc.insecure_channel(address))


def wait(vllm):
    def is_healthy():
        try:
            return stub(vllm.address).HealthCheck(engine.HealthCheckRequest(), timeout=2).healthy
        except grpc.RpcError:
            return False

    wait_for(f"{vllm.name}'s start", is_healthy, 600)


def request(number, tokens, max_tokens, stream):
    sampling = engine.SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0, n=1, skip_special_tokens=True, ignore_eos=True)
    sampling.max_tokens = max_tokens
    prompt = engine.TokenizedInput(original_text="", input_ids=tokens)
    return engine.GenerateRequest(request_id=f"lane-{number}", tokenized=prompt, sampling_params=sampling, stream=stream)


def text_request(number, text):
    sampling = engine.SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0, n=1, max_tokens=4, ignore_eos=True)
    return engine.GenerateRequest(request_id=f"text-{number}", text=text, sampling_params=sampling, stream=False)


def generate(router, asked):
    """Predicted overlap, cached tokens as reported, and the tokens generated."""
    call = router.Generate(asked, timeout=120)
    streamed, complete = [], None
    for answer in call:
        if answer.HasField("chunk"):
            streamed += answer.chunk.token_ids
        else:
            complete = answer.complete
    told = dict(call.initial_metadata())
    # In a stream the end tells the last token once more, and counts that one alone.
    output = streamed if asked.stream else list(complete.output_ids)
    assert len(output) == asked.sampling_params.max_tokens, (output, complete)
    assert complete.completion_tokens == len(complete.output_ids), complete
    return told["x-warmpath-instance"], int(told["x-warmpath-overlap-tokens"]), complete.cached_tokens, output


def refusal(server, asked):
    try:
        list(server.Generate(asked, timeout=30))
    except grpc.RpcError as error:
        return error.code(), error.details().replace(asked.request_id, "ID")
    raise AssertionError("a refusal was expected")


def running(server):
    return sum(load.num_running_reqs for load in server.GetLoads(engine.GetLoadsRequest(), timeout=5).loads)


def run(seed, count, pause, router, vllm):
    through, direct = stub(router.address), stub(vllm.address)
    assert through.HealthCheck(engine.HealthCheckRequest(), timeout=5).healthy
    for method, question in (("GetModelInfo", engine.GetModelInfoRequest()), ("GetServerInfo", engine.GetServerInfoRequest())):
        answers = [getattr(one, method)(question, timeout=10) for one in (through, direct)]
        for field in ("model_path", "vocab_size", "block_size", "max_num_seqs"):
            assert getattr(answers[0], field, None) == getattr(answers[1], field, None), (method, field)
    # Refused in the engine's own words.
    too_long = request("long", [300] * 5000, 1, True)
    assert refusal(through, too_long) == refusal(direct, too_long), refusal(through, too_long)

    mix, equal, cached, wrong = Mix(seed + 2), 0, 0, []
    for at in range(count):
        kind, prompt, _ = mix.next()
        name, predicted, reported, output = generate(through, request(at, prompt, mix.random.randint(1, 40), at % 2 == 0))
        assert name == vllm.name, name
        cached += reported
        equal += predicted == reported
        wrong += [{"request": at, "kind": kind, "predicted": predicted, "reported": reported}] if predicted != reported else []
        # There is no salt in this protocol.
        mix.answered(prompt, None, output)
        time.sleep(pause)

    # Texts, with the tokenizer that the engine handed out: nobody configured one.
    def is_tokenized():
        return "x-warmpath-overlap-tokens" in dict(through.Generate(text_request("first", "Once upon a time")).initial_metadata())

    wait_for("the tokenizer from the engine", is_tokenized, 60)
    texts_equal = 0
    for at in range(40):
        text = f"The story of the {('mill', 'river', 'tower', 'owl')[at % 4]}. " * 20 + f"Chapter {at // 8}: what came then?"
        _, predicted, reported, _ = generate(through, text_request(at, text))
        texts_equal += predicted == reported
        time.sleep(pause)

    def booked():
        load = router.instances()[vllm.name]
        return load["prefill_requests"] + load["decode_requests"]

    # Whoever hangs up frees the engine.
    call = through.Generate(request("cancelled", mix.tokens(40), 900, True), timeout=120)
    next(call)
    assert booked() == 1
    call.cancel()
    wait_for("the engine's end of a cancelled call", lambda: running(direct) == 0, 10)
    wait_for("the router's", lambda: booked() == 0, 10)

    # What is HTTP goes to who speaks it.
    answer = requests.post(f"{router.url}/v1/completions", json={"model": MODEL, "prompt": mix.tokens(40), "max_tokens": 1}, timeout=60)
    assert answer.ok and answer.headers["x-warmpath-instance"] != vllm.name, answer.text
    return {"over gRPC": count, "equal": equal, "share": equal / count, "wrong": wrong, "cached_tokens": cached, "texts": 40, "texts equal": texts_equal}
