"""Vectors in any dtype and layout give what they give as plain float32 matrices, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from graded_batches import value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssra_engine.kernels.mining import MiningIndex
from ssra_engine.kernels.topk import exact_topk

Array = npt.NDArray[Any]


def apart(rows: Array) -> Array:
    """Columns of a wider matrix, from the middle."""
    return np.pad(rows, ((0, 0), (3, 2)), constant_values=np.nan)[:, 3 : 3 + rows.shape[1]]


def every_other_row(rows: Array) -> Array:
    return np.repeat(rows, 2, axis=0)[::2]


def every_other_column(rows: Array) -> Array:
    return np.repeat(rows, 2, axis=1)[:, ::2]


def upside_down(rows: Array) -> Array:
    return rows[::-1].copy()[::-1]


def mirrored(rows: Array) -> Array:
    return rows[:, ::-1].copy()[:, ::-1]


def read_only(rows: Array) -> Array:
    rows = rows.copy()
    rows.flags.writeable = False
    return rows


def off_by_two_bytes(rows: Array) -> Array:
    """Not where the dtype would like to be in memory."""
    raw = np.zeros(rows.nbytes + 2, np.uint8)
    view = raw[2:].view(rows.dtype).reshape(rows.shape)
    view[:] = rows
    return view


def fields(rows: Array) -> Array:
    """Rows of records that are no multiple of a value apart."""
    record = np.dtype([("odd", np.uint8), ("vector", rows.dtype, rows.shape[1])])
    records = np.zeros(len(rows), record)
    records["vector"] = rows
    vectors: Array = records["vector"]
    return vectors


def other_byte_order(rows: Array) -> Array:
    return rows.astype(rows.dtype.newbyteorder())


def of_arrow(rows: Array) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


SOURCES: list[Callable[[Array], Any]] = [
    np.ascontiguousarray,
    np.asfortranarray,
    apart,
    every_other_row,
    every_other_column,
    upside_down,
    mirrored,
    read_only,
    off_by_two_bytes,
    fields,
    other_byte_order,
    torch.from_numpy,
    lambda rows: torch.from_numpy(rows.T.copy()).T,
    of_arrow,
    lambda rows: pa.chunked_array([of_arrow(rows[:1]), of_arrow(rows[1:])]),
    lambda rows: of_arrow(np.concatenate([rows[:1], rows]))[1:],
]


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 90), st.integers(1, 40)),
    dtypes=st.tuples(*[st.sampled_from([np.float16, np.float32, np.float64])] * 2),
    sources=st.tuples(*[st.sampled_from(SOURCES)] * 2),
)
@settings(deadline=None, max_examples=150)
def test_mining(
    seed: int, sizes: tuple[int, int, int], dtypes: tuple[Any, Any], sources: tuple[Any, Any]
) -> None:
    (q, n, d), rng = sizes, np.random.default_rng(seed)
    rows, documents = (rng.integers(-3, 4, (count, d)).astype(np.float32) for count in (q, n))
    expected = exact_topk(rows, documents, 5)
    queries, vectors = (
        source(matrix.astype(dtype))
        for source, matrix, dtype in zip(sources, (rows, documents), dtypes, strict=True)
    )
    index = MiningIndex(d)
    index.add(vectors)
    mined = index.mine(queries, 5)
    np.testing.assert_array_equal(mined.ids, expected.ids)
    np.testing.assert_array_equal(mined.scores, expected.scores)


TENSORS: list[Callable[[Tensor], Tensor]] = [
    torch.clone,
    lambda x: x.T.contiguous().T,
    lambda x: torch.nn.functional.pad(x, (3, 2), value=torch.nan)[:, 3:-2],
    lambda x: x.repeat_interleave(2, dim=0)[::2],
    lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    lambda x: torch.cat([torch.full_like(x[:1], torch.nan), x])[1:],
]


@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(1, 60), st.integers(0, 30), st.integers(2, 40)),
    dtypes=st.tuples(*[st.sampled_from([torch.float16, torch.bfloat16, torch.float32])] * 3),
    layouts=st.tuples(*[st.sampled_from(TENSORS)] * 3),
    products=st.sampled_from(["float32", "bfloat16"]),
    self_contrast=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_loss(
    *,
    seed: int,
    sizes: tuple[int, int, int],
    dtypes: tuple[torch.dtype, ...],
    layouts: tuple[Callable[[Tensor], Tensor], ...],
    products: str,
    self_contrast: bool,
) -> None:
    (b, m, d), draw = sizes, torch.Generator().manual_seed(seed)
    shapes = {"query": b, "positive": b, "negatives": m}
    plain = {
        name: torch.randint(-4, 5, (rows, d), generator=draw).float()
        for name, rows in shapes.items()
    }
    grades = torch.randint(0, 4, (b,), generator=draw)
    settings = {"dims": [d // 2, d], "self_contrast": self_contrast, "products": products}
    expected = value_and_gradients({**plain, "grades": grades.float()}, **settings)
    given = {
        name: layout(tensor.to(dtype))
        for (name, tensor), layout, dtype in zip(plain.items(), layouts, dtypes, strict=True)
    }
    got = value_and_gradients({**given, "grades": grades}, **settings)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[-1], expected[-1])
    for ours, theirs, dtype in zip(got[1:-1], expected[1:-1], dtypes, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs.to(dtype))
