"""`mine_hard_negatives`: what sentence-transformers' function of that name does, and more."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ssra_engine.kernels.mining import Backend
from ssra_engine.negatives.embedding import Embedding, embed, worker_pool
from ssra_engine.negatives.formats import Cells, check_names, to_table
from ssra_engine.negatives.grading import Grader, Grading
from ssra_engine.negatives.reading import corpus_texts, grade_column, pick_columns, text_column
from ssra_engine.negatives.report import report
from ssra_engine.negatives.reranking import Reranker
from ssra_engine.negatives.search import IndexSearch, pair_scores, search_by
from ssra_engine.negatives.settings import (
    MiningError,
    OutputFormat,
    SamplingStrategy,
    Settings,
    modernise,
    resolve,
)
from ssra_engine.negatives.task import Task, graded_task, plain_task
from ssra_engine.negatives.walk import Mined, walk
from ssra_engine.progress import ProgressBar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from datasets import Dataset

__all__ = ["mine", "mine_hard_negatives"]

Grades = npt.NDArray[np.int8]


def mine_hard_negatives(
    dataset: Dataset | pa.Table,
    model: Any,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | pa.Array | pa.ChunkedArray | None = None,
    cross_encoder: Any = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: SamplingStrategy = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: OutputFormat = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: list[str] | bool = False,
    verbose: bool = True,
    cache_folder: str | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
    *,
    grade_column_name: str | None = None,
    judgments: Dataset | pa.Table | None = None,
    grader: Grader | None = None,
    backend: Backend = "exact",
    simans_a: float = 50.0,
    simans_b: float = 0.0,
    seed: int | None = None,
) -> Dataset | pa.Table:
    """Add hard negatives to pairs of query and positive.

    Arguments, defaults and rows are those of `sentence_transformers.util.mine_hard_negatives`
    (version 6); what stands behind `margin` is ours. Every distinct query is searched for once
    among the distinct documents (`corpus`, then the positives that are not in it). Its
    `range_max` + m best documents are candidates, m the most rows that any query has. Its positives
    are taken out, and what a limit refuses; the ranks `range_min` to `range_max` of what is left
    are what the strategy chooses from.

    Where their rows are not determined, these are: equal scores go by the order of the corpus, and
    random numbers by `seed`. Scores are float32 sums in another order than theirs, so a score
    within rounding of a limit or of another score may fall on its other side.

    Two things differ by design: NaN and infinity in a model's vectors, empty columns and unknown
    strategies are errors; and on a GPU theirs caps `range_max` and searches in float16.

    Memory: beside the vectors, one byte a value of the corpus, and at most about 200 MB.

    Args:
        dataset: a Dataset, or an Arrow table with columns of texts; the result is of that kind.
        model: a SentenceTransformer, or what has its `encode_query`, `encode_document`,
            `similarity`, `similarity_pairwise` and `similarity_fn_name`.
        anchor_column_name: column of queries; else the first.
        positive_column_name: column of positives; else the second.
        corpus: more documents, as texts.
        cross_encoder: its scores replace the model's, of candidates and positives, where one of
            the four limits is set; without a limit it is not used.
        range_min: how many of the best that are left to leave out.
        range_max: see above. None: `range_min` + `num_negatives` + m, with 10 x `num_negatives`
            where a margin, `max_score`, a grader, SimANS, or a cross-encoder with `min_score` may
            refuse some.
        max_score: refuse scores above it.
        min_score: refuse scores below it.
        absolute_margin: refuse scores above p - absolute_margin, where p is the lowest score of
            the query's positives.
        relative_margin: refuse scores above p - |p| * relative_margin.
        num_negatives: how many for each query.
        sampling_strategy: "top", the best; "random", each alike; "simans", weights
            exp(-simans_a * (s - p - simans_b)^2) with s the candidate's score (arXiv 2210.11773).
        query_prompt_name: which of the model's prompts stands before queries.
        query_prompt: a text that stands before queries; goes before `query_prompt_name`.
        corpus_prompt_name: the same for documents.
        corpus_prompt: the same for documents.
        include_positives: keep positives among the candidates; implies "n-tuple".
        output_format: "triplet" (query, positive, negative), a row for each negative; "n-tuple"
            (query, positive, negative_1, ...), where all were found; "labeled-pair" (query,
            document, label), label 1 for positives; "labeled-list" (query, documents, labels).
        output_scores: add the scores of positive and negatives as a list `scores`; labeled forms
            hold `score` or `scores` in place of labels.
        batch_size: texts of one forward pass.
        faiss_batch_size: an upper bound on the queries that are searched for at once.
        use_faiss: compare by inner product whatever the model's similarity, as theirs does then.
            faiss is not used.
        use_multi_process: embed, and rerank, in worker processes; True or a list of devices.
        verbose: print figures, and progress on standard error.
        cache_folder: keep the vectors here, in files as sentence-transformers names and reads
            them. A name holds the model's base model, not its weights: one folder for each model.
        as_triplets: deprecated; `output_format` "triplet" or "n-tuple".
        margin: deprecated; `absolute_margin`.
        grade_column_name: column of grades of the pairs, whole numbers from 0. Then each pair of
            grade g >= 1 gets negatives of its own, margins count from its own score, and no
            document that is known to be of grade g or higher for its query is among them. Pairs
            of grade 0 are knowledge only. Of several grades of a pair the highest counts. A list
            `grades` (`grade` in labeled pairs) holds the grades of positive and negatives, null
            where unknown. m is the most documents that are known of any query.
        judgments: more knowledge: query, document, grade, under the names of the dataset's
            columns where all three are there, else the first three columns.
        grader: (queries, documents) -> grades: asked, before a document is chosen, about pairs
            that are not known; those of grade g or higher are replaced by the next choice.
        backend: "exact", or where the corpus is too large for it an index of faiss: "faiss-ivf" and
            "faiss-hnsw" miss some documents, and `verbose` prints how many; "faiss-gpu" needs one.
        simans_a: how sharply SimANS falls off: at a distance of 1 / sqrt(2 a) the weight is 61 %;
            with 50 that is 0.1, a tenth of the range of cosines.
        simans_b: where its peak lies, from the positive's score.
        seed: of draws. None draws from Python's global generator as sentence-transformers does:
            the same rows as theirs after `random.seed(s)`, and also with `seed=s`.

    Raises:
        MiningError: an argument is wrong; it is a ConfigError and a ValueError.
        DataError: a cell is no text, or no grade.
        EngineError: a model gave something else than finite numbers for each text.
        StoreError: the cache cannot be read or written.
        RuntimeError: "faiss-gpu" where faiss has no GPU.
    """
    anchor, positive = pick_columns(dataset, anchor_column_name, positive_column_name)
    settings = modernise(
        Settings(
            num_negatives=num_negatives,
            range_min=range_min,
            range_max=range_max,
            max_score=max_score,
            min_score=min_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            sampling_strategy=sampling_strategy,
            simans_a=simans_a,
            simans_b=simans_b,
            include_positives=include_positives,
            output_format=output_format,
            output_scores=output_scores,
            reranked=cross_encoder is not None,
            graded=grader is not None,
        ),
        as_triplets,
        margin,
    )
    task = _read(dataset, anchor, positive, corpus, grade_column_name, judgments, grader)
    settings = resolve(settings, task.most_known)
    check_names(anchor, positive, settings, graded=task.grades is not None)
    how = Embedding(
        batch_size=batch_size,
        query_prompt_name=query_prompt_name,
        query_prompt=query_prompt,
        corpus_prompt_name=corpus_prompt_name,
        corpus_prompt=corpus_prompt,
        use_multi_process=use_multi_process,
        cache_folder=cache_folder,
        progress=verbose,
    )
    if verbose:
        _describe(task, settings, range_max)
    mined = mine(
        task,
        model,
        settings,
        how,
        queries_at_once=faiss_batch_size,
        inner_product=use_faiss,
        cross_encoder=cross_encoder,
        grader=grader,
        backend=backend,
        seed=seed,
    )
    table = to_table(task, mined, anchor, positive, settings)
    if verbose:
        cells = Cells.of(task, mined)
        print(report(cells, len(table), mined.candidates, mined.skipped, settings))
    return table if isinstance(dataset, pa.Table) else _dataset(table)


def mine(
    task: Task,
    model: Any,
    settings: Settings,
    how: Embedding,
    *,
    queries_at_once: int = 16384,
    inner_product: bool = False,
    cross_encoder: Any = None,
    grader: Grader | None = None,
    backend: Backend = "exact",
    seed: int | None = None,
) -> Mined:
    """Embed, search and choose for a task; the arguments are those of `mine_hard_negatives`."""
    if queries_at_once < 1:
        raise MiningError(f"faiss_batch_size is {queries_at_once}; it must be at least 1.")
    say = print if how.progress else lambda text: None
    queries, corpus = embed(model, task.queries, task.corpus, how, say)
    reranks = settings.reranks and cross_encoder is not None
    bar = ProgressBar() if how.progress else None
    with (
        bar or nullcontext(),
        worker_pool(cross_encoder, how.use_multi_process if reranks else False) as pool,
    ):
        rerank = Reranker(cross_encoder, how.batch_size, pool) if reranks else None
        if rerank is None:
            scores = pair_scores(model, queries, corpus, task.positive_query, task.positives)
        else:
            scores = rerank(_pairs(task))
        search = search_by(model, corpus, inner_product=inner_product, backend=backend)
        if backend != "exact" and isinstance(search, IndexSearch):
            nearest = min(settings.num_negatives, len(task.corpus))
            share = search.recall(queries, nearest)
            say(f"{backend} finds {share:.1%} of the {nearest} nearest documents.")
        if bar:
            bar.begin("mining", len(task.group_query), 0)
        return walk(
            task,
            queries,
            search,
            scores,
            settings,
            queries_at_once=queries_at_once,
            rerank=rerank,
            grade=None if grader is None else Grading(task, grader),
            seed=seed,
            done=bar.update if bar else lambda groups: None,
        )


def _read(
    dataset: Any,
    anchor: str,
    positive: str,
    corpus: Any,
    grade_column_name: str | None,
    judgments: Any,
    grader: Grader | None,
) -> Task:
    anchors, positives = text_column(dataset, anchor), text_column(dataset, positive)
    documents = corpus_texts(corpus)
    if grade_column_name is None:
        if judgments is not None or grader is not None:
            raise MiningError(
                "judgments and grader need the grades of the positives. Give grade_column_name."
            )
        return plain_task(anchors, positives, documents)
    grades = grade_column(dataset, grade_column_name)
    if not (grades > 0).any():
        raise MiningError(f"column '{grade_column_name}' holds no grade above 0: no positive.")
    judged = _judged(judgments, (anchor, positive, grade_column_name))
    return graded_task(anchors, positives, grades, documents, judged)


def _judged(judgments: Any, names: tuple[str, str, str]) -> tuple[list[str], list[str], Grades]:
    if judgments is None:
        return [], [], np.empty(0, np.int8)
    there = list(judgments.column_names)
    if not set(names) <= set(there):
        if len(there) < 3:
            raise MiningError(
                f"judgments has the columns {', '.join(there)}. It needs query, document, grade."
            )
        names = there[0], there[1], there[2]
    query, document, grade = names
    return (
        text_column(judgments, query),
        text_column(judgments, document),
        grade_column(judgments, grade),
    )


def _pairs(task: Task) -> Iterator[tuple[str, str]]:
    """Texts of every query and positive."""
    both = zip(task.positive_query.tolist(), task.positives.tolist(), strict=True)
    return ((task.queries[query], task.corpus[document]) for query, document in both)


def _describe(task: Task, settings: Settings, range_max: int | None) -> None:
    groups, pairs = len(task.group_query), len(task.positives)
    print(
        f"{len(task.queries):,} queries with {pairs:,} positives "
        f"({pairs / len(task.queries):.3g} for each), {len(task.corpus):,} documents, "
        f"{groups:,} lists of negatives to find."
    )
    if range_max is None:
        print(f"range_max is {settings.range_max}, from the other arguments.")


def _dataset(table: pa.Table) -> Dataset:
    from datasets import Dataset

    return Dataset(table)
