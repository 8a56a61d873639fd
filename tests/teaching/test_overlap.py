"""How much of a description stands in its document: the ten rows of small teachers, and scripts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssra_engine.schema import CORPUS, DOCUMENT_TEXT_COLUMNS
from ssra_engine.teaching.overlap import overlap
from ssra_engine.teaching.settings import RewriteConfig

_FLOOR = RewriteConfig().min_overlap


def _documents(*titles: str, **fields: str) -> pa.RecordBatch:
    blank = dict.fromkeys(DOCUMENT_TEXT_COLUMNS, "")
    rows = [blank | {"doc_id": str(i), "title": title} | fields for i, title in enumerate(titles)]
    return pa.RecordBatch.from_pylist(rows, schema=CORPUS)


def _overlap(description: str, title: str, **fields: str) -> float:
    return float(overlap(pa.array([description]), _documents(title, **fields))[0])


@pytest.mark.parametrize(
    ("description", "title", "share"),
    [
        ("kite, kite: KITE!", "a kite", 1.0),
        ("The document is a book.", "courier phone cooling comparison", 0.0),
        ("kites", "kite", 1 / 2),
        ("波函平板的音质", "波函平板 音质 讲解", 4 / 6),
        ("文档是一本书", "波函平板 音质 讲解", 0.0),
        ("日本の猫 kite", "猫と kite", 1 / 4),
        ("고양이 이야기", "고양이", 2 / 4),
        ("हिन्दी कहानी", "हिन्दी कहानी", 1.0),
        ("Größe", "GRÖSSE grö", 0.0),
        ("ﬁne", "fine", 1.0),
    ],
)
def test_a_share_of_pieces(description: str, title: str, share: float) -> None:
    assert _overlap(description, title) == pytest.approx(share)


def test_every_field_counts() -> None:
    for name in DOCUMENT_TEXT_COLUMNS[1:]:
        assert _overlap("cooling", "phone", **{name: "the cooling"}) == 1.0


def test_what_has_no_piece_has_no_share() -> None:
    documents = _documents("a", "b", "c")
    assert np.isnan(overlap(pa.array(["", "the cat is on", "猫"]), documents)).all()


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_a_share_is_a_share_and_a_text_holds_itself(pairs: list[tuple[str, str]]) -> None:
    texts = pa.array([text for text, _ in pairs], pa.string())
    shares = overlap(texts, _documents(*(title for _, title in pairs)))
    assert ((shares >= 0) & (shares <= 1) | np.isnan(shares)).all()
    own = overlap(texts, _documents(*texts.to_pylist()))
    assert (np.isnan(own) | (own == 1)).all()
    assert (np.isnan(own) == np.isnan(shares)).all()
