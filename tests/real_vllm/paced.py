"""A worker of vLLM on a CPU whose steps take as long as a GPU would have taken: it computes, then sleeps for what is left.

    PYTHONPATH=tests/real_vllm vllm serve ... --worker-cls paced.PacedWorker

All else is vLLM's: scheduler, batches, block pool, server. A step that sleeps leaves the CPU to others, so several engines on one
core do not slow each other, as long as computing a tiny model's step takes less than the pace. The coefficients are in seconds, as
those of the simulator's step model; which never sees them, but is fitted to what requests took.
"""
import time

from vllm.v1.worker.cpu_worker import CPUWorker

STEP = 0.012
# For each token computed, pair of one computed in prefill and one that it attends to, and token that a decoding request attends to.
TOKEN, ATTENTION, DECODE_CONTEXT = 6e-4, 2e-7, 3e-6


def seconds(scheduled):
    """What a step should take that computes what vLLM's scheduler has scheduled."""
    new, cached = scheduled.scheduled_new_reqs, scheduled.scheduled_cached_reqs
    computed = [(one.req_id, one.num_computed_tokens, False) for one in new]
    computed += [
        (name, tokens, outputs > 0)
        for name, tokens, outputs in zip(cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens)
    ]
    pairs = context = 0
    for name, before, decodes in computed:
        tokens = scheduled.num_scheduled_tokens[name]
        if decodes:
            context += before + tokens
        else:
            pairs += tokens * before + tokens * tokens / 2
    return STEP + TOKEN * scheduled.total_num_scheduled_tokens + ATTENTION * pairs + DECODE_CONTEXT * context


class PacedWorker(CPUWorker):
    ends = 0.0

    def execute_model(self, scheduler_output):
        begins = time.monotonic()
        output = super().execute_model(scheduler_output)
        if scheduler_output.total_num_scheduled_tokens:
            self.ends = begins + seconds(scheduler_output)
        return output

    def sample_tokens(self, grammar_output):
        output = super().sample_tokens(grammar_output)
        time.sleep(max(self.ends - time.monotonic(), 0.0))
        return output
