"""The model card: data, settings and results of a training, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]

_HEAD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
---

# {name}

An embedding model for search, trained with ssra-engine {version} on graded pairs of query and
document (loss: GradedMatryoshkaLoss, arXiv 2509.16717) from `{base}`.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
queries = model.encode_query(["a query"])
documents = model.encode_document(["title\\ntext"])
scores = model.similarity(queries, documents)
```

A document is its texts (title, text, ocr, asr), those that are not blank, a line each. Vectors have
{width} components{dims}.
"""

#: Figures of the results table, by their beginnings.
_SHOWN = ("ndcg", "ap", "spearman")


def model_card(name: str, width: int, record: Mapping[str, Any]) -> str:
    """README.md of a trained model.

    Args:
        name: of its folder.
        width: of its vectors.
        record: what training.json holds.
    """
    settings = record["fingerprint"]["settings"]
    dims = settings["dims"]
    head = _HEAD.format(
        name=name,
        version=record["fingerprint"]["version"],
        base=record["base"],
        width=width,
        dims=f"; prefixes of {', '.join(map(str, dims))} were trained too" if dims else "",
    )
    processes = record["fingerprint"].get("processes", 1)
    joint = f" on the joint batch of {processes} processes" if processes > 1 else ""
    parts = [
        head,
        _results(record["results"]),
        _section("Data", record["data"], "pairs"),
        _section("Settings", settings, "value"),
        f"{record['steps']:,} steps{joint}; temperature at the end {record['temperature']:.4f}.\n",
    ]
    return "\n".join(parts)


def _results(results: Mapping[str, Any]) -> str:
    base, trained = results["base"], results["trained"]
    rows = [
        f"| {name} | {100 * base[name]:.2f} | {100 * trained[name]:.2f} |"
        for name in trained
        if name.split("_", 1)[-1 if name.startswith("dim") else 0].startswith(_SHOWN)
        and name in base
    ]
    note = (
        f"On {results['pairs']:,} judged pairs of {results['queries']:,} queries, split "
        f"{results['split']}, x 100; figures per query from lists of {results['min_list']} or "
        "more. The base is measured with the pooling, prompts and length of this training. "
        "`ssra-engine evaluate model` gives intervals and tests."
    )
    table = ["| figure | base | trained |", "| --- | ---: | ---: |", *rows]
    return f"## Results\n\n{note}\n\n" + "\n".join(table) + "\n"


def _section(title: str, tree: Mapping[str, Any], unit: str) -> str:
    lines = [f"## {title}", "", f"| | {unit} |", "| --- | --- |"]
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += [f"| {key}, {inner} | {_cell(one)} |" for inner, one in value.items()]
        else:
            lines.append(f"| {key} | {_cell(value)} |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value!r}`".replace("|", "\\|")
    return "-" if value is None else str(value)
