"""The Python functions: the example of the docs runs; every argument is documented and typed."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest
from files import write

from ssra_engine import api
from ssra_engine.evaluation.measuring import Settings

_PAGE = Path(__file__).parent.parent / "docs/reference/python.md"
_SMALL = """{
    "model.preset": "tiny",
    "model.tiny.vocabulary": 400, "model.tiny.width": 32, "model.tiny.layers": 1,
    "model.tiny.heads": 2, "model.tiny.pretrain_tokens": 2000,
    "model.score.max_steps": 3, "model.query.max_steps": 3,
}"""
_SHORT = '{"refine.rounds": 0, "synthesize.attempts": 1, "synthesize.max_new_tokens": 6}'
_THINGS = ("tram", "otter", "piano", "garlic", "noodles", "river")


@pytest.mark.parametrize("name", ["build", "run", "mine", "train", "evaluate"])
def test_every_argument_is_typed_and_documented(name: str) -> None:
    function = getattr(api, name)
    signature = inspect.signature(function)
    text = inspect.getdoc(function) or ""
    told = set(re.findall(r"^    (\w+):", text[text.index("Args:") : text.index("Returns:")], re.M))
    assert told == set(signature.parameters)
    assert all(
        one.annotation is not inspect.Parameter.empty for one in signature.parameters.values()
    )
    assert signature.return_annotation is not inspect.Signature.empty
    assert "Raises:" in text


def _write_world() -> None:
    """36 documents, and 18 queries with ten judged documents each, every third of them dev."""
    generator = np.random.default_rng(0)
    pairs = [(a, b) for a in _THINGS for b in _THINGS]
    documents = [{"doc_id": f"{a}-{b}", "title": f"{a} in {b}", "text": ""} for a, b in pairs]
    write(documents, Path("corpus.parquet"))
    rows = []
    for number in range(18):
        a, b = pairs[number * 5 % len(pairs)]
        mixed = [pairs[row] for row in generator.permutation(len(pairs))]
        others = [pair for pair in mixed if pair != (a, b)][:9]
        for x, y in [(a, b), *others]:
            grade = 3 if (x, y) == (a, b) else int(x == a) + int(y == b)
            split = "train" if number % 3 else "dev"
            row = {"query": f"{a} {b}", "doc_id": f"{x}-{y}", "grade": grade, "split": split}
            rows.append(row)
    write(rows, Path("judgments.parquet"))


@pytest.mark.slow
def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_models import write_encoder

    monkeypatch.chdir(tmp_path)
    _write_world()
    write_encoder(tmp_path / "my-encoder")
    (example,) = re.findall(
        r"^```python\n(from ssra_engine import api.*?)^```", _PAGE.read_text(), re.M | re.S
    )
    small = example.replace('{"model.preset": "tiny"}', _SMALL)
    small = small.replace('"engines", "out")', f'"engines", "out", settings={_SHORT})')
    small = small.replace('against="my-encoder")', 'against="my-encoder", settings=few)')
    assert "settings=few" in small
    assert _SMALL in small
    assert _SHORT in small
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(small, {"few": Settings(resamples=20, precisions=("float32",))})
    kept, ndcg = printed.getvalue().split()
    assert int(kept) >= 0
    assert 0 <= float(ndcg) <= 1
