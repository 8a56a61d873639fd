"""Grades that a score model gives to candidates, each pair once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssra_engine.errors import EngineError
from ssra_engine.negatives.task import Task

__all__ = ["Grader", "Grading"]

#: (queries, documents), texts of equal number -> the grade of each pair, a whole number from 0.
Grader = Callable[[Sequence[str], Sequence[str]], npt.ArrayLike]


class Grading:
    """Asks a grader about keys of pairs, and remembers.

    Args:
        task: whose keys and texts these are.
        grader: the score model.
    """

    def __init__(self, task: Task, grader: Grader) -> None:
        self._task, self._grader = task, grader
        self._grades: dict[int, int] = {}

    def __call__(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Grades of distinct keys, int8[n].

        Raises:
            EngineError: the grader gave something else than a grade for each pair.
        """
        listed = keys.tolist()
        new = [key for key in listed if key not in self._grades]
        if new:
            pairs = [divmod(key, len(self._task.corpus)) for key in new]
            queries = [self._task.queries[query] for query, _ in pairs]
            documents = [self._task.corpus[document] for _, document in pairs]
            grades = np.asarray(self._grader(queries, documents))
            _check(grades, len(new))
            self._grades.update(zip(new, grades.tolist(), strict=True))
        return np.fromiter((self._grades[key] for key in listed), np.int8, len(listed))


def _check(grades: npt.NDArray[Any], pairs: int) -> None:
    if grades.shape != (pairs,) or not np.issubdtype(grades.dtype, np.integer):
        raise EngineError(
            f"the grader gave {grades.dtype} {list(grades.shape)} for {pairs} pairs. It must give "
            "a whole number for each; round an expected grade up to be on the safe side."
        )
    if (grades < 0).any() or (grades > np.iinfo(np.int8).max).any():
        raise EngineError("the grader gave a grade below 0 or above 127.")
