"""Batches in which no row is a false negative of another by its text, with grades by a recipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sentence_transformers.base.sampler import DefaultBatchSampler

from ssra_engine.keys import hash_strings, mix, normalise

__all__ = ["DistinctBatches", "distinct_batches", "plan_batches", "row_keys"]

#: A query's character trigrams, by min-hash: 8 bands of 5. Two queries count as near-duplicates
#: where a band agrees: 96 % of those whose trigrams have a Jaccard index of 0.8, 2 % at 0.3.
_BANDS, _ROWS = 8, 5


def row_keys(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """What two rows of a batch must not have in common: document, query, and nearly the query.

    Returns:
        uint64[N, 2 + bands]; rows conflict where they share a value.
    """
    normal = normalise(pa.array(queries, pa.string()))
    columns = [mix(hash_strings(pa.array(documents, pa.string())), 1), mix(hash_strings(normal), 2)]
    return np.stack([*columns, *_sketches(normal.to_pylist()).T], axis=1)


def _sketches(queries: Sequence[str]) -> np.ndarray:
    seeds = np.arange(_BANDS * _ROWS, dtype=np.uint64)[:, None]
    bands = np.empty((len(queries), _BANDS), np.uint64)
    for number, query in enumerate(queries):
        padded = f" {query} "
        grams = {padded[at : at + 3] for at in range(max(1, len(padded) - 2))}
        hashes = hash_strings(pa.array(sorted(grams), pa.string()))
        least = mix(np.broadcast_to(hashes, (len(seeds), len(hashes))), seeds).min(axis=1)
        band = np.arange(_BANDS, dtype=np.uint64) + np.uint64(3)
        bands[number] = mix(band, *least.reshape(_BANDS, _ROWS).T)
    return bands


def plan_batches(
    keys: np.ndarray,
    grades: np.ndarray,
    batch_size: int,
    *,
    recipe: Mapping[int, float] | None = None,
    seed: int = 0,
    drop_last: bool = False,
) -> Iterator[list[int]]:
    """Batches of row numbers in a seeded order, no two rows of a batch sharing a key.

    Without a recipe, every row comes once; a row that conflicts waits for a later batch, so the
    last batches may be short. With one, every batch holds each grade by its share, as far as
    conflicts let it; there are as many batches as N rows fill, and rows of a grade that runs out
    come again while others are left out.

    Args:
        keys: uint64[N, K], of `row_keys`.
        grades: [N].
        batch_size: rows at most.
        recipe: grade and its share, above 0; shares need not sum to 1.
        seed: of the order.
        drop_last: leave out short batches (without a recipe).

    Raises:
        ValueError: the recipe names a share that is not above 0, or a grade that no row has.
    """
    generator = np.random.default_rng(seed)
    if recipe is None:
        waiting = deque(generator.permutation(len(keys)).tolist())
        while waiting:
            batch = _draw(waiting, keys, batch_size, set())
            if len(batch) == batch_size or not drop_last:
                yield batch
        return
    rows = {grade: np.flatnonzero(grades == grade) for grade in recipe}
    for grade, share in recipe.items():
        if not share > 0 or not len(rows[grade]):
            raise ValueError(
                f"the recipe gives grade {grade} a share of {share}, "
                f"and {len(rows[grade])} rows have it; both must be above 0"
            )
    queues: dict[int, deque[int]] = {grade: deque() for grade in recipe}
    for _ in range(max(1, len(keys) // batch_size)):
        taken: set[int] = set()
        batch = []
        for grade, count in _quotas(recipe, batch_size).items():
            queue = queues[grade]
            if len(queue) < count:
                queue.extend(generator.permutation(rows[grade]).tolist())
            batch += _draw(queue, keys, count, taken)
        yield generator.permutation(batch).tolist()


def _draw(waiting: deque[int], keys: np.ndarray, count: int, taken: set[int]) -> list[int]:
    """Rows from the left that do not conflict; those passed over stay, in order."""
    drawn: list[int] = []
    passed: list[int] = []
    while waiting and len(drawn) < count:
        row = waiting.popleft()
        own = keys[row].tolist()
        if taken.isdisjoint(own):
            taken.update(own)
            drawn.append(row)
        else:
            passed.append(row)
    waiting.extendleft(reversed(passed))
    return drawn


def _quotas(recipe: Mapping[int, float], batch_size: int) -> dict[int, int]:
    """Whole numbers by the shares, by largest remainder."""
    total = sum(recipe.values())
    exact = {grade: batch_size * share / total for grade, share in recipe.items()}
    quotas = {grade: int(number) for grade, number in exact.items()}
    most = sorted(exact, key=lambda grade: quotas[grade] - exact[grade])
    for grade in most[: batch_size - sum(quotas.values())]:
        quotas[grade] += 1
    return quotas


class DistinctBatches(DefaultBatchSampler):  # type: ignore[misc]  # sentence-transformers is untyped
    """`plan_batches` as a batch sampler of sentence-transformers; an epoch has a plan of its own.

    The data set's first two columns are query and document; its label, where there is one, is the
    grade.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: Any = None,
        seed: int = 0,
        recipe: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last)
        labels = [name for name in valid_label_columns or () if name in dataset.column_names]
        texts = [name for name in dataset.column_names if name not in labels]
        self._keys = row_keys(list(dataset[texts[0]]), list(dataset[texts[1]]))
        self._grades = np.asarray(dataset[labels[0]]) if labels else np.ones(len(dataset))
        self._recipe = recipe
        self._seed = seed

    def _plan(self) -> Iterator[list[int]]:
        return plan_batches(
            self._keys,
            self._grades,
            self.batch_size,
            recipe=self._recipe,
            seed=int(mix(np.array([self._seed], np.uint64), self.epoch)[0]),
            drop_last=self.drop_last,
        )

    def __iter__(self) -> Iterator[list[int]]:
        return self._plan()

    def __len__(self) -> int:
        return sum(1 for _ in self._plan())


def distinct_batches(
    recipe: Mapping[int, float] | None = None,
) -> Callable[..., DistinctBatches]:
    """`DistinctBatches` with a recipe, for `SentenceTransformerTrainingArguments(batch_sampler=)`.

    Args:
        recipe: of `plan_batches`.
    """

    def make(dataset: Any, **settings: Any) -> DistinctBatches:
        return DistinctBatches(dataset, **settings, recipe=recipe)

    return make
