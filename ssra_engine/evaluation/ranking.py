"""Metrics of ranked lists with graded judgments, query by query: trec_eval through pytrec_eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytrec_eval

__all__ = ["Grades", "Scores", "ranking_metrics"]

#: Grade of each judged document of a query, by any key.
Grades = Mapping[str, int]
#: Score of each document in a query's list, by the same keys.
Scores = Mapping[str, float]

Floats = npt.NDArray[np.float64]


def ranking_metrics(
    grades: Sequence[Grades],
    scores: Sequence[Scores],
    *,
    cutoffs: Sequence[int] = (5, 10),
    relevant: int = 1,
) -> dict[str, Floats]:
    """nDCG, recall and reciprocal rank of each query's list.

    nDCG is sum(gain / log2(rank + 1)) over that of the best list of all judged documents, with the
    gain of a grade g either g (`ndcg_linear`, Jarvelin and Kekalainen 2002) or 2^g - 1
    (`ndcg_exp`, Burges et al. 2005). Documents without a grade count as grade 0. Equal scores are
    ordered by key, the largest first, as trec_eval does.

    Args:
        grades: of Q queries, at least 0.
        scores: of the same queries.
        cutoffs: lengths of lists.
        relevant: for recall and reciprocal rank, the lowest grade that counts as relevant.

    Returns:
        name -> float64[Q]: ndcg_linear@k, ndcg_exp@k, recall@k and mrr. NaN where a query has no
        judged document above grade 0 (nDCG), or none that is relevant (recall, mrr).
    """
    ks = ",".join(map(str, cutoffs))
    powers = [{key: 2**grade - 1 for key, grade in one.items()} for one in grades]
    linear = _trec(grades, scores, {f"ndcg_cut.{ks}"}, 1)
    exponential = _trec(powers, scores, {f"ndcg_cut.{ks}"}, 1)
    binary = _trec(grades, scores, {f"recall.{ks}", "recip_rank"}, relevant)
    best = np.array([max(one.values(), default=0) for one in grades], np.int64)
    found: dict[str, Floats] = {}
    for k in cutoffs:
        found[f"ndcg_linear@{k}"] = np.where(best > 0, linear[f"ndcg_cut_{k}"], np.nan)
        found[f"ndcg_exp@{k}"] = np.where(best > 0, exponential[f"ndcg_cut_{k}"], np.nan)
    for k in cutoffs:
        found[f"recall@{k}"] = np.where(best >= relevant, binary[f"recall_{k}"], np.nan)
    found["mrr"] = np.where(best >= relevant, binary["recip_rank"], np.nan)
    return found


def _trec(
    grades: Sequence[Grades], scores: Sequence[Scores], measures: set[str], level: int
) -> dict[str, Floats]:
    qrels = {str(query): dict(one) for query, one in enumerate(grades)}
    runs = {str(query): dict(one) for query, one in enumerate(scores)}
    rows = pytrec_eval.RelevanceEvaluator(qrels, measures, relevance_level=level).evaluate(runs)
    names = sorted({name for row in rows.values() for name in row})
    # A query whose list is empty is not among the rows: it found nothing.
    return {
        name: np.array([rows.get(query, {}).get(name, 0.0) for query in qrels]) for name in names
    }
