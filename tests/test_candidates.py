from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from files import write

from ssra_engine.candidates import find_candidates, read_queries, retrieve, terms
from ssra_engine.cli import main
from ssra_engine.errors import DataError
from ssra_engine.judgments import read_pairs


def test_terms() -> None:
    assert terms("red panda-2 小猫钓鱼 猫 abc猫狗") == [
        "red", "panda", "2", "小猫", "猫钓", "钓鱼", "猫", "abc", "猫狗"
    ]  # fmt: skip
    assert terms("!? ") == []


def _bm25(query: str, documents: list[str]) -> list[float]:
    """Robertson's formula with Lucene's idf, document by document, to a constant factor."""
    counts = [Counter(terms(document)) for document in documents]
    mean = sum(sum(count.values()) for count in counts) / len(counts)
    scores = []
    for count in counts:
        score = 0.0
        for term in terms(query):
            holders = sum(term in one for one in counts)
            idf = math.log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
            norm = 1.5 * (1 - 0.75 + 0.75 * sum(count.values()) / mean)
            score += idf * count[term] / (count[term] + norm)
        scores.append(score)
    return scores


def test_the_order_is_that_of_the_formula() -> None:
    random = np.random.default_rng(4)
    words = [*"abcdefghij", "小猫", "钓鱼", "第三集"]
    documents = [" ".join(random.choice(words, random.integers(1, 12))) for _ in range(80)]
    queries = ["a b", "小猫钓鱼", "c 第三集 c", "zebra", ""]
    for query, rows in zip(queries, retrieve(queries, documents, 10), strict=True):
        scores = np.array(_bm25(query, documents))
        expected = [row for row in np.argsort(-scores, kind="stable")[:10] if scores[row] > 0]
        assert scores[rows] == pytest.approx(scores[expected])
        assert len(set(rows.tolist())) == len(rows)


def test_equal_documents_come_in_their_order() -> None:
    (rows,) = retrieve(["cat"], ["a cat", "a dog", "a cat", "a cat"], 2)
    assert rows.tolist() == [0, 2]


def test_pairs_for_build(tmp_path: Path) -> None:
    documents = [
        {"doc_id": "a", "title": "Red Panda", "text": "in snow"},
        {"doc_id": "b", "title": "小猫钓鱼", "text": "", "ocr": "第三集"},
        {"doc_id": "c", "title": "nothing", "text": "of it"},
    ]
    queries = [
        {"query": "red PANDA"},
        {"query": "第三集 小猫"},
        {"query": "red PANDA"},
        {"query": "x"},
    ]
    corpus, asked = write(documents, tmp_path / "c.parquet"), write(queries, tmp_path / "q.jsonl")
    output = tmp_path / "pairs.arrow"
    facts = find_candidates([corpus], [asked], output, 5)
    assert facts == {"queries": 3, "documents": 3, "pairs": 2, "queries_without_documents": 1}
    assert read_pairs([output], doc_ids=pa.array(["a", "b", "c"])).to_pylist() == [
        {"query": "red PANDA", "doc_id": "a"},
        {"query": "第三集 小猫", "doc_id": "b"},
    ]
    result = CliRunner().invoke(
        main,
        ["candidates", "--corpus", str(corpus), "--queries", str(asked), "--output", str(output)],
    )
    assert result.exit_code == 0
    assert f"Next: give --pairs {output} to build." in result.stdout.replace("\n", " ")


def test_bad_queries(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="blank"):
        read_queries([write([{"query": "a"}, {"query": " "}], tmp_path / "blank.jsonl")])
    with pytest.raises(DataError, match="query"):
        read_queries([write([{"text": "a"}], tmp_path / "none.jsonl")])
