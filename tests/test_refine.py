from __future__ import annotations

import pyarrow as pa
import pytest
from documents import make_documents

from ssra_engine.prompts import TEMPLATES
from ssra_engine.refine import sample_documents, survivors
from ssra_engine.schema import CORPUS, D2Q, SYNTHETIC


@pytest.mark.parametrize("rows", [1, 7, 500])
def test_a_sample_does_not_depend_on_batches_and_keeps_the_order(rows: int) -> None:
    documents = make_documents(500)
    whole = sample_documents([documents], 60, 9)
    assert whole.schema == CORPUS
    batches = [documents.slice(start, rows) for start in range(0, 500, rows)]
    assert sample_documents(batches, 60, 9).equals(whole)
    numbers = [int(doc_id[4:]) for doc_id in whole.column("doc_id").to_pylist()]
    assert len(numbers) == 60
    assert numbers == sorted(numbers)
    assert sample_documents(batches, 60, 10).column("doc_id").to_pylist() != numbers
    mean = sum(numbers) / 60
    assert 190 < mean < 310


def test_a_sample_of_fewer_documents_is_all_of_them() -> None:
    documents = make_documents(5)
    assert sample_documents([documents], 60, 9).equals(pa.Table.from_batches([documents]))
    assert len(sample_documents([], 60, 9)) == 0


def test_survivors_are_training_data_of_the_next_round() -> None:
    documents = pa.Table.from_batches([make_documents(4)])
    kept = pa.Table.from_pylist(
        [
            {"query": "b", "doc_id": "doc-3", "target": 2},
            {"query": "a", "doc_id": "doc-1", "target": 0},
        ],
        schema=SYNTHETIC,
    )
    data = survivors(kept, documents, TEMPLATES["plain"], 2)
    assert data.schema == D2Q
    prompts = TEMPLATES["plain"].documents(make_documents(4)).to_pylist()
    assert data.to_pylist() == [
        {"doc_id": f"doc-{n}", "document": prompts[n], "query": q, "grade": g, "source": "round 2"}
        for n, q, g in [(3, "b", 2), (1, "a", 0)]
    ]
