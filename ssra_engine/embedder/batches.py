"""Batches in which no row is a false negative of another by its text, with grades by a recipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import distributed

from ssra_engine.keys import hash_strings, mix, normalise

__all__ = ["DistinctBatches", "Sides", "distinct_batches", "plan_batches", "row_keys", "row_sides"]

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


#: For each row, the documents that it brings into a batch, and those relevant to its query.
Sides = tuple[Sequence[Set[int]], Sequence[Set[int]]]


def row_sides(
    queries: Sequence[str], documents: Sequence[Sequence[str]], grades: np.ndarray
) -> Sides:
    """What rows must not have of each other: one's documents, and those relevant to the other.

    Args:
        queries: N texts.
        documents: columns of N texts each: the row's own document, then its hard negatives.
        grades: [N]; a document is relevant to the queries that have it with a grade above 0. A row
            of grade 0 asks for nothing: its query's term has no weight.
    """
    keys = np.stack([hash_strings(pa.array(column, pa.string())) for column in documents], axis=1)
    brought = [frozenset(row) for row in keys.tolist()]
    of_query: dict[str, set[int]] = {}
    normal = normalise(pa.array(queries, pa.string())).to_pylist()
    for query, key, grade in zip(normal, keys[:, 0].tolist(), grades.tolist(), strict=True):
        if grade > 0:
            of_query.setdefault(query, set()).add(key)
    nothing: Set[int] = frozenset()
    relevant = [
        of_query[query] if grade > 0 else nothing
        for query, grade in zip(normal, grades.tolist(), strict=True)
    ]
    return brought, relevant


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
    sides: Sides | None = None,
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
        sides: of `row_sides`; a document that one row brings is never relevant to the query of
            another.
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
            batch = _draw(waiting, _Batch(keys, sides), batch_size)
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
        taken = _Batch(keys, sides)
        batch = []
        for grade, count in _quotas(recipe, batch_size).items():
            queue = queues[grade]
            if len(queue) < count:
                queue.extend(generator.permutation(rows[grade]).tolist())
            batch += _draw(queue, taken, count)
        yield generator.permutation(batch).tolist()


class _Batch:
    """What the rows of a batch hold so far."""

    def __init__(self, keys: np.ndarray, sides: Sides | None) -> None:
        self._keys = keys
        self._sides = sides
        self._taken: set[int] = set()
        self._brought: set[int] = set()
        self._relevant: set[int] = set()

    def admit(self, row: int) -> bool:
        """Take a row up, unless it conflicts with one that is there."""
        own = self._keys[row].tolist()
        if not self._taken.isdisjoint(own):
            return False
        if self._sides is not None:
            brought, relevant = (side[row] for side in self._sides)
            if not (self._relevant.isdisjoint(brought) and self._brought.isdisjoint(relevant)):
                return False
            self._brought.update(brought)
            self._relevant.update(relevant)
        self._taken.update(own)
        return True


def _draw(waiting: deque[int], batch: _Batch, count: int) -> list[int]:
    """Rows from the left that do not conflict; those passed over stay, in order."""
    drawn: list[int] = []
    passed: list[int] = []
    while waiting and len(drawn) < count:
        row = waiting.popleft()
        if batch.admit(row):
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

    The data set's first two columns are query and document, further ones hard negatives; its label,
    where there is one, is the grade. Every epoch has as many batches as the first, which the
    trainer's count of steps, and so going on from a checkpoint, rests on: a longer plan loses its
    last and shortest batches, a shorter one begins again.

    Rows that conflict with most others, such as those of a query with a long list, are left over at
    the end of a plan; `least` leaves out the batches that are then too short to contrast.

    In a distributed training, what is planned is the joint batch of all processes, and each of them
    gets an even part of it: as one process would train that has the joint batch. Short batches stay
    there, although sentence-transformers then asks to drop them, so that no process waits for a
    batch that another has not got.
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
        least: float = 0.0,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last)
        labels = [name for name in valid_label_columns or () if name in dataset.column_names]
        texts = [name for name in dataset.column_names if name not in labels]
        columns = [list(dataset[name]) for name in texts]
        self._keys = row_keys(columns[0], columns[1])
        self._grades = np.asarray(dataset[labels[0]]) if labels else np.ones(len(dataset))
        self._sides = row_sides(columns[0], columns[1:], self._grades)
        self._recipe = recipe
        self._seed = seed
        self._processes = _processes()
        self._joint = batch_size * self._processes
        if self._processes > 1:
            # accelerate deals batches out in turn; told of a size, it would drop parts of others.
            self.batch_size = None
        sizes = [len(batch) for batch in self._plan(0, 0)]
        self._count = sum(size >= least * max(sizes) for size in sizes)
        if not self._count:
            raise ValueError(f"{len(dataset)} rows are too few for {self._processes} processes")

    def _plan(self, epoch: int, again: int) -> Iterator[list[int]]:
        batches = plan_batches(
            self._keys,
            self._grades,
            self._joint,
            sides=self._sides,
            recipe=self._recipe,
            seed=int(mix(np.array([self._seed], np.uint64), epoch, again)[0]),
            drop_last=self.drop_last and self._processes == 1,
        )
        # Fewer rows than processes would leave one of them without any.
        return (batch for batch in batches if len(batch) >= self._processes)

    def __iter__(self) -> Iterator[list[int]]:
        left = self._count
        for again in range(self._count):
            for batch in islice(self._plan(self.epoch, again), left):
                left -= 1
                yield from (part.tolist() for part in np.array_split(batch, self._processes))
            if not left:
                return

    def __len__(self) -> int:
        return self._count * self._processes


def _processes() -> int:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def distinct_batches(
    recipe: Mapping[int, float] | None = None, least: float = 0.0
) -> Callable[..., DistinctBatches]:
    """`DistinctBatches` with a recipe, for `SentenceTransformerTrainingArguments(batch_sampler=)`.

    Args:
        recipe: of `plan_batches`.
        least: share of the longest batch's rows that a batch must have.
    """

    # The trainer pickles it into its checkpoints, which a closure would not bear.
    return partial(DistinctBatches, recipe=recipe, least=least)
