#!/usr/bin/env python3
"""Makes the Parquet files beside it, to the schemas of their sources; what is said in them is invented.

python3 -m venv env && env/bin/pip install pyarrow && env/bin/python tests/data/parquet/make.py
"""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent


def said(*texts):
    return [{"content": text, "role": role} for text, role in zip(texts, ["user", "assistant"] * len(texts))]


def lmsys():
    """The columns of lmsys/lmsys-chat-1m, nested ones too; several row groups; a conversation without an answer."""
    scores = [("harassment", pa.float64()), ("hate/threatening", pa.float64())]
    flags = [("harassment", pa.bool_()), ("hate/threatening", pa.bool_())]
    schema = pa.schema(
        [
            ("conversation_id", pa.string()),
            ("model", pa.string()),
            ("conversation", pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))),
            ("turn", pa.int64()),
            ("language", pa.string()),
            (
                "openai_moderation",
                pa.list_(
                    pa.struct(
                        [
                            ("categories", pa.struct(flags)),
                            ("category_scores", pa.struct(scores)),
                            ("flagged", pa.bool_()),
                        ]
                    )
                ),
            ),
            ("redacted", pa.bool_()),
        ]
    )
    moderation = {
        "categories": {"harassment": False, "hate/threatening": False},
        "category_scores": {"harassment": 0.1, "hate/threatening": 1e-8},
        "flagged": False,
    }
    head = "You are given an article. Please write a short summary of it, in one sentence.\n\n"
    conversations = [
        said(head + "Cats sleep most of the day.", "Cats mostly sleep.", "And dogs?", "Dogs sleep less."),
        said(head + 'Żółć is a "word"\twith only\u2028diacritics \U0001f980.', "It is."),
        said("Are you there?"),
        said("Hello", "Hi", "Tell me more", "", "Please", "No"),
    ]
    rows = [
        {
            "conversation_id": f"{index:032x}",
            "model": ["vicuna-13b", "gpt-4"][index % 2],
            "conversation": conversation,
            "turn": len(conversation) // 2,
            "language": "English",
            "openai_moderation": [moderation] * len(conversation),
            "redacted": False,
        }
        for index, conversation in enumerate(conversations)
    ]
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, HERE / "lmsys_chat.parquet", row_group_size=2, compression="snappy")


def kavier():
    """Kavier's own example, as its tools write it (tokens as text), and as Marconi-Kavier has it (tokens as lists)."""
    with open(HERE.parent / "kavier/kavier-0.5.3_input_example.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in ["session_id", "turn_id", "num_input_tokens", "num_output_tokens"]:
            row[name] = int(row[name])
        row["ts"] = float(row["ts"])
    pq.write_table(pa.Table.from_pylist(rows), HERE / "kavier.parquet", compression="gzip")
    for row in rows:
        for name in ["input_tokens", "output_tokens"]:
            row[name] = json.loads(row[name])
    pq.write_table(pa.Table.from_pylist(rows), HERE / "marconi_kavier.parquet", compression="none")
    lengths = pa.Table.from_pylist(rows).select(["ts", "num_input_tokens", "num_output_tokens"])
    pq.write_table(lengths, HERE / "kavier_zstd.parquet", compression="zstd")


lmsys()
kavier()
