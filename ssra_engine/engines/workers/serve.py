"""The loop of a worker process: it opens one engine and answers what it is asked over its pipes.

``python serve.py NAME`` serves the engine of ``NAME_worker.py`` beside it, a module with

    open_model(options) -> model
    model.about() -> dict                                  told once, when the model is open
    model.score(prompts, label_ids) -> one list of floats a prompt
    model.generate(prompts, seeds, settings) -> (token ids, their log-probabilities) a prompt

A prompt is a pair of token lists, the document and what is asked of it; prompts of one document
share the list. ``settings`` has max_new_tokens, min_new_tokens, temperature, top_p and stop_ids:
the tokens that end a completion and belong to it. Log-probabilities are those of the model itself.

A message is `MAGIC`, its length (uint64, little endian) and that many bytes of an Arrow IPC stream,
whose schema carries under `ABOUT` a JSON object: what is asked, or how it went. The other side of
the pipes reads and writes messages with `pack` and `unpack` too.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

__all__ = ["COMPLETIONS", "HEADER", "MAGIC", "main", "pack", "scores_schema", "unpack"]

MAGIC = b"SSRAwrk1"
HEADER = struct.Struct("<8sQ")
ABOUT = b"about"

#: One row a prompt: the tokens drawn and the log-probability of each.
COMPLETIONS = pa.schema(
    [
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),
    ]
)

_PARENT_CHECK_SECONDS = 1.0

Prompt = tuple[list[int], list[int]]


def scores_schema(labels: int) -> pa.Schema:
    """One row a prompt: the logits of the labels, up to a constant of the row."""
    return pa.schema([pa.field("logits", pa.list_(pa.float32(), labels), nullable=False)])


def pack(about: dict[str, Any], batch: pa.RecordBatch | None = None) -> bytes:
    """A message, header included."""
    schema = pa.schema([]) if batch is None else batch.schema
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema.with_metadata({ABOUT: json.dumps(about)})) as writer:
        if batch is not None:
            writer.write_batch(batch)
    body = sink.getvalue()
    return b"".join((HEADER.pack(MAGIC, body.size), body))


def unpack(body: bytes | bytearray) -> tuple[dict[str, Any], pa.RecordBatch | None]:
    """What a message says, and its rows.

    Raises:
        ValueError: it is no such message (`pyarrow.ArrowInvalid` is one).
    """
    try:
        reader = pa.ipc.open_stream(pa.py_buffer(body))
        batches = list(reader)
        about = json.loads((reader.schema.metadata or {})[ABOUT])
        for batch in batches:
            batch.validate(full=True)
    except (OSError, KeyError) as error:
        raise ValueError(f"no message: {error}") from error
    if not isinstance(about, dict) or len(batches) > 1:
        raise ValueError("no message")
    return about, batches[0] if batches else None


def main(name: str) -> None:
    """Serve until the pipe from the parent ends."""
    source, sink = _take_pipes()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    model: Any = None
    while (asked := _read(source)) is not None:
        about, batch = asked
        try:
            if about["call"] == "open":
                model = importlib.import_module(f"{name}_worker").open_model(about["options"])
                answer = pack({"ok": True, **model.about()})
            else:
                answer = pack({"ok": True}, _answer(model, about, batch))
        except Exception as error:  # whatever the engine raises is told to the parent
            lines = traceback.format_exc().strip().splitlines()
            problem = f"{type(error).__name__}: {error}"
            answer = pack({"ok": False, "error": problem, "trace": "\n".join(lines[-12:])})
        sink.write(answer)
        sink.flush()


def _answer(model: Any, about: dict[str, Any], batch: pa.RecordBatch | None) -> pa.RecordBatch:
    assert batch is not None
    prefixes = batch.column("prefix").dictionary.to_pylist()
    places = batch.column("prefix").indices.to_pylist()
    suffixes = batch.column("suffix").to_pylist()
    prompts = [(prefixes[place], suffix) for place, suffix in zip(places, suffixes, strict=True)]
    if about["call"] == "score":
        labels = about["label_ids"]
        logits = pa.array(model.score(prompts, labels), pa.list_(pa.float32(), len(labels)))
        return pa.RecordBatch.from_arrays([logits], schema=scores_schema(len(labels)))
    drawn = model.generate(prompts, batch.column("seed").to_pylist(), about["settings"])
    columns = [
        pa.array([tokens for tokens, _ in drawn], COMPLETIONS.field("token_ids").type),
        pa.array([logprobs for _, logprobs in drawn], COMPLETIONS.field("logprobs").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=COMPLETIONS)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes for ourselves: what an engine or its children print goes to standard error."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _read(source: BinaryIO) -> tuple[dict[str, Any], pa.RecordBatch | None] | None:
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    magic, length = HEADER.unpack(header)
    body = source.read(length)
    if magic != MAGIC or len(body) < length:
        return None
    return unpack(body)


def _end_with_parent(parent: int) -> None:
    """End this process and its children when the parent is gone, even in the midst of a batch."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    main(sys.argv[1])
