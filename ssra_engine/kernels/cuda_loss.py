"""The graded contrastive loss on a GPU: products by cuBLAS, sums and weights by csrc/cuda.

A block of anchors meets all candidates at once. Dims nest, so the products at one dim go on from
those at the dim before, and one product at the largest dim pays for all. As soon as the sums of a
block are whole, its cosines are overwritten by what they weigh in the gradient, which is two more
products. No matrix of all pairs is held: memory is that of the inputs and one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ssra_engine.kernels.cuda import address, computing_on, extension, launch_on

if TYPE_CHECKING:
    from ssra_engine import _cuda

__all__ = ["infonce"]

#: Bytes of cosines at a time, and the fewest anchors that go together whatever they take.
BLOCK_BYTES = 256 * 2**20
FEWEST_ROWS = 128

_SHORTEST = 1e-12  # shorter vectors are divided by this, which is then a constant


class _Vectors(NamedTuple):
    """Vectors at all L dims; their columns end with the last dim.

    Attributes:
        unit: float32[n, D], of length 1 at the last dim.
        factors: `unit` in the dtype of the products.
        inverse: float32[n, 1], what they were multiplied by.
        scales: float32[L, n], what makes prefixes of `unit` unit vectors.
        turning: bool[L, n], false where a prefix is so short that it is divided by a constant.
        gradient: float32[n, D] with respect to `unit`, before its lengths are taken into account.
        dots: float64[L, n], sums of weight * cosine over the pairs a vector is in.
    """

    unit: Tensor
    factors: Tensor
    inverse: Tensor
    scales: Tensor
    turning: Tensor
    gradient: Tensor
    dots: Tensor


def infonce(
    query: Tensor,
    candidates: Tensor,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
    gradients: bool,
    products: str = "float32",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The custom operator of `ssra_engine.kernels.loss` for CUDA tensors; see there.

    With `products` "bfloat16", both sides of every product are rounded to bfloat16, and sums are
    float32; it needs torch 2.8.

    Nothing waits for the GPU: NaN and infinity in the vectors give NaN, and whether the temperature
    is above 0 is not looked at.

    Raises:
        RuntimeError: the extension was not built, or CUDA refuses.
    """
    with torch.no_grad(), computing_on(query.device):
        batch = query, candidates, grades, temperature
        return _Loss(*batch, dims, self_contrast, margin, gradients, products).run()


class _Loss:
    """One evaluation: what its blocks share."""

    def __init__(
        self,
        query: Tensor,
        candidates: Tensor,
        grades: Tensor,
        temperature: Tensor,
        dims: list[int],
        self_contrast: bool,
        margin: float,
        gradients: bool,
        products: str,
    ) -> None:
        self.kernels = extension()
        self.segments = list(pairwise([0, *dims]))
        self.self_contrast, self.gradients = self_contrast, gradients
        self.heat = temperature.float().contiguous()
        self.temperature = temperature
        self.grades = grades.float().contiguous()
        self.columns = query.shape[1]
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[products]
        self.queries = _prepare(query, self.segments, dtype)
        self.candidates = _prepare(candidates, self.segments, dtype)
        self.count, self.levels = len(query), len(dims)
        positives = self._positive_cosines()
        self.positives = positives.float()
        self.ceilings = (positives + margin).float()
        self.largest = self.positives.clone()
        self.others, self.shares, self.pulls = torch.zeros(
            3, self.levels, self.count, device=query.device
        )
        self.losses = positives.new_zeros(self.levels, self.count)
        self.anchors = self.kernels.Anchors(
            count=self.count,
            positives=address(self.positives),
            ceilings=address(self.ceilings),
            largest=address(self.largest),
            others=address(self.others),
            shares=address(self.shares),
            pulls=address(self.pulls),
        )
        width = max(len(candidates), 1)
        self.rows = min(
            max(BLOCK_BYTES // (4 * self.levels * width), FEWEST_ROWS), max(self.count, 1)
        )
        self.workspace = query.new_empty(self.levels * self.rows * width, dtype=torch.float32)

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss and gradients, as the custom operator returns them."""
        launch = launch_on(self.grades)
        alike = (self.queries, self.candidates) if self.self_contrast else ()
        # The sums of an anchor must be whole before anything can be weighed.
        for vectors in alike:
            for block in self._blocks(vectors, vectors, symmetric=True):
                self.kernels.add_row_sums(launch, block.tile)
                self.kernels.add_column_sums(launch, block.tile)
        for block in self._blocks(self.queries, self.candidates, symmetric=False):
            self.kernels.add_row_sums(launch, block.tile)
            self._finish(launch, block)
            if self.gradients:
                self._add_gradients(launch, block)
        if self.gradients:
            for vectors in alike:
                for block in self._blocks(vectors, vectors, symmetric=True):
                    self._add_gradients(launch, block)
        return self._results()

    def _positive_cosines(self) -> Tensor:
        """float64[L, B]: everything else is measured by them."""
        q, c = self.queries, self.candidates
        products = [
            (q.unit[:, a:b].double() * c.unit[: self.count, a:b].double()).sum(1)
            for a, b in self.segments
        ]
        return torch.stack(products).cumsum(0) * q.scales * c.scales[:, : self.count]

    def _blocks(self, left: _Vectors, right: _Vectors, *, symmetric: bool) -> Iterator[_Block]:
        """Blocks of anchors with their cosines; one at a time, as they share memory.

        Where pairs are symmetric, a block begins at its own column.
        """
        width = self.count if symmetric else len(right.unit)
        for begin in range(0, self.count, self.rows):
            rows = slice(begin, min(begin + self.rows, self.count))
            columns = slice(begin if symmetric else 0, width)
            shape = (self.levels, rows.stop - rows.start, columns.stop - columns.start)
            products = self.workspace[: shape[0] * shape[1] * shape[2]].view(shape)
            for level, (a, b) in enumerate(self.segments):
                x, y = left.factors[rows, a:b], right.factors[columns, a:b].T
                _add_product(products[level - 1] if level else None, x, y, products[level])
            tile = self.kernels.ContrastTile(
                products=address(products),
                level_stride=products.stride(0),
                row_stride=products.stride(1),
                rows=shape[1],
                columns=shape[2],
                first_row=rows.start,
                first_column=columns.start,
                levels=self.levels,
                row_scales=address(left.scales),
                row_scales_stride=left.scales.stride(0),
                column_scales=address(right.scales),
                column_scales_stride=right.scales.stride(0),
                temperature=address(self.heat),
                symmetric=symmetric,
                anchors=self.anchors,
            )
            yield _Block(tile, products, left, right, rows, columns)

    def _finish(self, launch: _cuda.Launch, block: _Block) -> None:
        self.kernels.finish_sums(
            launch,
            self.anchors,
            levels=self.levels,
            first=block.rows.start,
            end=block.rows.stop,
            grades=address(self.grades),
            temperature=address(self.heat),
            losses=address(self.losses),
        )

    def _add_gradients(self, launch: _cuda.Launch, block: _Block) -> None:
        levels, rows, columns = block.products.shape
        column_blocks = -(-columns // launch.threads)
        row_blocks = -(-rows // self.kernels.WEIGH_ROWS)
        row_dots = block.products.new_empty(levels, column_blocks, rows)
        column_dots = block.products.new_empty(levels, row_blocks, columns)
        self.kernels.weigh(
            launch, block.tile, row_dots=address(row_dots), column_dots=address(column_dots)
        )
        block.left.dots[:, block.rows] += row_dots.sum(1, dtype=torch.float64)
        block.right.dots[:, block.columns] += column_dots.sum(1, dtype=torch.float64)
        for weights, (a, b) in zip(block.products, self.segments, strict=True):
            x, y = block.left.factors[block.rows, a:b], block.right.factors[block.columns, a:b]
            factors = weights.to(x.dtype)
            for_rows = block.left.gradient[block.rows, a:b]
            _add_product(for_rows, factors, y, for_rows)
            for_columns = block.right.gradient[block.columns, a:b]
            _add_product(for_columns, factors.T, x, for_columns)

    def _results(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        loss = self.losses.sum().float()
        if not self.gradients:
            none = self.grades.new_empty(0, self.columns)
            return loss, none, none.clone(), self.temperature.new_zeros(())
        # Each pair is in the dots of two vectors.
        dots = (self.queries.dots.sum() + self.candidates.dots.sum()) / 2
        return (
            loss,
            _whole_gradient(self.queries, self.segments, self.columns),
            _whole_gradient(self.candidates, self.segments, self.columns),
            (-dots / self.heat.double()).to(self.temperature.dtype).reshape(()),
        )


class _Block(NamedTuple):
    """Some anchors with what they are compared with.

    Attributes:
        tile: what the kernels see.
        products: float32[L, rows, columns], cosines but for the scales, later weights.
        left: vectors of the rows.
        right: vectors of the columns.
        rows: which of `left`.
        columns: which of `right`.
    """

    tile: _cuda.ContrastTile
    products: Tensor
    left: _Vectors
    right: _Vectors
    rows: slice
    columns: slice


def _add_product(base: Tensor | None, x: Tensor, y: Tensor, out: Tensor) -> None:
    """Writes base + x @ y in float32; `base` may be `out`."""
    if x.dtype != torch.float32:
        product = _mixed_product(x, y)
        torch.add(product, 0 if base is None else base, out=out)
    elif base is None:
        torch.mm(x, y, out=out)
    else:
        torch.addmm(base, x, y, out=out)


def _mixed_product(x: Tensor, y: Tensor) -> Tensor:
    product: Tensor = torch.mm(x, y, out_dtype=torch.float32)
    return product


def _prepare(vectors: Tensor, segments: list[tuple[int, int]], dtype: torch.dtype) -> _Vectors:
    squares = [
        torch.linalg.vector_norm(vectors[:, a:b], dim=1, dtype=torch.float64).square()
        for a, b in segments
    ]
    lengths = torch.stack(squares).cumsum(0).sqrt()
    divisors = lengths.clamp_min(_SHORTEST)
    inverse = divisors[-1].reciprocal()[:, None]
    unit = vectors[:, : segments[-1][1]] * inverse.float()
    return _Vectors(
        unit=unit,
        factors=unit.to(dtype),
        inverse=inverse.float(),
        # Where a prefix is shorter than that, products of two underflow, and scales would overflow.
        scales=(divisors[-1] / divisors).clamp_max(1e17).float(),
        turning=lengths >= _SHORTEST,
        gradient=torch.zeros_like(unit),
        dots=torch.zeros_like(lengths),
    )


def _whole_gradient(vectors: _Vectors, segments: list[tuple[int, int]], columns: int) -> Tensor:
    """With respect to the vectors themselves: what changes only lengths goes out."""
    lost = torch.where(vectors.turning, vectors.dots * vectors.scales.double().square(), 0.0)
    lost = lost.flip(0).cumsum(0).flip(0).float()  # a column belongs to this and all larger dims
    whole = vectors.unit.new_zeros(len(vectors.unit), columns)
    for level, (a, b) in enumerate(segments):
        kept = vectors.gradient[:, a:b] - vectors.unit[:, a:b] * lost[level][:, None]
        whole[:, a:b] = kept * vectors.inverse
    return whole
