from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ssra_engine.engines.engine import Request
from ssra_engine.errors import EngineError
from ssra_engine.roles import fake_roles
from ssra_engine.schema import D2Q


def _retrain(folder: Path, query: str, seed: int = 0) -> str:
    row = {"doc_id": "d", "document": "T:d\n", "query": query, "grade": 1, "source": "judgment"}
    roles = fake_roles((0, 1))
    folder.mkdir()
    roles.retrain(pa.Table.from_pylist([row], schema=D2Q), folder, seed)
    ((completion,),) = roles.open_query(folder).generate([Request("T:a\n", "G:1\nQ:")])
    return completion.text


def test_a_retrained_fake_follows_from_its_data_and_seed(tmp_path: Path) -> None:
    texts = [
        _retrain(tmp_path / str(number), *given)
        for number, given in enumerate([("a", 0), ("b", 0), ("a", 1), ("a", 0)])
    ]
    assert len(set(texts)) == 3
    assert texts[3] == texts[0]


def test_a_folder_that_is_no_fake_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"weights\.txt: not the weights"):
        fake_roles((0, 1)).open_query(tmp_path)
