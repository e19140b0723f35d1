#!/usr/bin/env python3
"""What is known of the slice beside it, computed by the book and independently of Warmpath: `published_slice.json`."""

import hashlib
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
p = HERE / "toolagent_arxiv_slice_93rows.jsonl"
rows = [json.loads(l) for l in open(p)]
B = 512
reqs = []
for r in rows:
    ids = r["hash_ids"]
    reqs.append(([tuple(ids[: i + 1]) for i in range(len(ids))], r["input_length"]))
uniq = len({b for q, _ in reqs for b in q})
tot = sum(len(q) for q, _ in reqs)


def run(kind, cap, warm=0, tokens=False):
    hit = 0
    den = 0
    if kind in ("lru", "fifo"):
        order = []
        for n, (q, L) in enumerate(reqs):
            h = 0
            for b in q:
                if b in order:
                    h += 1
                else:
                    break
            if n >= warm:
                hit += min(h * B, L) if tokens else h
                den += L if tokens else len(q)
            for b in reversed(q) if kind == "lru" else q:
                if kind == "lru":
                    if b in order:
                        order.remove(b)
                    order.append(b)
                elif b not in order:
                    order.append(b)
                if len(order) > cap:
                    order.pop(0)
    else:
        kept = set()
        for n, (q, L) in enumerate(reqs):
            h = 0
            for b in q:
                if b in kept:
                    h += 1
                else:
                    break
            if n >= warm:
                hit += min(h * B, L) if tokens else h
                den += L if tokens else len(q)

            def nxt(b):
                for m in range(n + 1, len(reqs)):
                    if b in reqs[m][0]:
                        return m
                return None

            cand = [(nxt(b), len(b), b) for b in kept | set(q)]
            cand = sorted([c for c in cand if c[0] is not None], key=lambda c: (c[0], c[1]))
            kept = {c[2] for c in cand[:cap]}
    return hit / den


inf = 10**9
out = dict(
    name="toolagent_arxiv_slice_93rows.jsonl",
    sha256=hashlib.sha256(open(p, "rb").read()).hexdigest(),
    rows=len(rows),
    ideal=round(run("lru", inf), 6),
    lru=[round(run("lru", int(s * uniq)), 6) for s in (0.01, 0.05, 0.1, 0.25, 0.5)],
    last_half_token_ideal=round(run("lru", inf, len(rows) // 2, True), 6),
    curve=[
        [c] + [round(run(k, c, len(rows) // 2, True), 6) for k in ("fifo", "lru", "opt")] for c in (5, 20, 60, 200, 937)
    ],
)
(HERE / "published_slice.json").write_text(json.dumps([out], indent=1) + "\n")
