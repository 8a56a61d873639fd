"""Which pairs and negatives an embedder is trained on, and what bad tables get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from files import write
from resumable import run_here
from worlds import write_world

from ssra_engine.corpus import open_corpus
from ssra_engine.embedder.rows import TrainingRows, read_training_rows
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.errors import ConfigError, DataError
from ssra_engine.evaluation.embedding import document_texts
from ssra_engine.schema import NEGATIVES

GRADES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, Path]:
    corpus, judgments = write_world(tmp_path_factory.mktemp("world"))
    return open_corpus([corpus]).table(), judgments


def rows(world: tuple[pa.Table, Path], **more: Any) -> TrainingRows:
    settings = TrainSettings(**more.pop("settings", {}))
    return read_training_rows(world[0], [world[1]], GRADES, settings, **more)


def of_pairs(found: TrainingRows) -> dict[tuple[str, str], float]:
    data = found.dataset
    return dict(zip(zip(data["query"], data["document"], strict=True), data["label"], strict=True))


def test_only_train_judgments_come_in_with_the_texts_that_are_measured(
    world: tuple[pa.Table, Path],
) -> None:
    judged = pa.parquet.read_table(world[1]).to_pylist()
    texts = document_texts(world[0]).to_pylist()
    text_of = dict(zip(world[0]["doc_id"].to_pylist(), texts, strict=True))
    expected = {
        (row["query"], text_of[row["doc_id"]]): float(row["grade"])
        for row in judged
        if row["split"] == "train"
    }
    found = rows(world)
    assert of_pairs(found) == expected
    assert "a film about tram\nin otter" in text_of.values()
    assert sum(found.counts["judgments"].values()) == len(expected)


def test_binary_labels_begin_in_the_upper_half_of_the_scale_or_where_told(
    world: tuple[pa.Table, Path],
) -> None:
    grades = rows(world).dataset["label"]
    for settings, least in (({}, 2), ({"relevant": 3}, 3)):
        found = rows(world, settings={"binary_labels": True, **settings}).dataset["label"]
        assert found[:] == [float(grade >= least) for grade in grades]


def synthetic(folder: Path, samples: list[tuple[str, str, int]]) -> Path:
    folder.mkdir()
    table = [
        {"query": query, "doc_id": doc_id, "target": target, "grade": 0}
        for query, doc_id, target in samples
    ]
    write(table, folder / "part-00000.parquet")
    return folder


def test_held_out_queries_do_not_come_in_by_way_of_synthetic_ones(
    world: tuple[pa.Table, Path], tmp_path: Path
) -> None:
    judged = pa.parquet.read_table(world[1]).to_pylist()
    dev = next(row for row in judged if row["split"] == "dev")
    train = next(row for row in judged if row["split"] == "train")
    samples = [
        ("a new query", "fox-sea", 2),
        (dev["query"], "fox-sea", 2),
        (f"  {dev['query'].upper().replace(' ', '　')} ", "fox-sea", 2),
        (train["query"].title(), train["doc_id"], 2),
        (train["query"], "sea-sea", 2),
    ]
    found = rows(world, synthetic=synthetic(tmp_path / "accepted", samples))
    made = {query for query, _ in of_pairs(found).keys() - of_pairs(rows(world)).keys()}
    assert made == {"a new query", train["query"]}
    assert found.counts["synthetic"]["of held-out queries"] == 2
    assert found.counts["synthetic"]["judged already"] == 1
    assert found.counts["synthetic"]["2"] == 2
    # The grade it was written for counts, which is what `accept` vouches for.
    assert of_pairs(found)["a new query", "a film about fox\nin sea"] == 2


def test_a_finished_run_is_read_by_its_folder(tmp_path: Path) -> None:
    from documents import write_documents

    write_documents(tmp_path / "corpus.arrow", 12)
    run_here(tmp_path, 12, 6)
    documents = open_corpus([tmp_path / "corpus.arrow"]).table()
    judgments = [
        {"query": f"q{number}", "doc_id": "doc-1", "grade": number % 2, "split": split}
        for number, split in enumerate(["train", "train", "dev"])
    ]
    path = write(judgments, tmp_path / "judgments.jsonl")
    kept = pa.parquet.read_table(tmp_path / "out/synthetic")
    found = read_training_rows(
        documents, [path], GRADES, TrainSettings(), synthetic=tmp_path / "out"
    )
    assert len(found.dataset) == 2 + len(kept)
    labels = sorted(kept["target"].to_pylist())
    assert sorted(found.dataset["label"][2:]) == labels


def negatives(world: tuple[pa.Table, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The train pair of grade 3 of two queries."""
    judged = pa.parquet.read_table(world[1]).to_pylist()
    best = [row for row in judged if row["split"] == "train" and row["grade"] == 3]
    return best[0], best[1]


def test_negatives_come_by_falling_score_without_what_is_as_good_as_the_pair(
    world: tuple[pa.Table, Path], tmp_path: Path
) -> None:
    first, second = negatives(world)
    judged = pa.parquet.read_table(world[1]).to_pylist()
    known = {row["doc_id"]: row["grade"] for row in judged if row["query"] == first["query"]}
    free = [doc_id for doc_id in world[0]["doc_id"].to_pylist() if doc_id not in known][:3]
    partly = next(doc_id for doc_id, grade in known.items() if 0 < grade < 3)
    best = next(doc_id for doc_id, grade in known.items() if grade == 3)
    lists = {
        "negative_doc_ids": [free[0], partly, free[1], best, free[2]],
        "negative_scores": [0.4, 0.8, 0.9, 0.95, 0.7],
        # What was judged counts, whatever the table says.
        "negative_grades": [None, 3, 1, 0, 3],
    }
    one = {"query": first["query"], "doc_id": first["doc_id"], "score": 0.9, **lists}
    other = {**one, "query": "nobody asks this"}
    table = pa.Table.from_pylist([one, other], schema=NEGATIVES)
    nested = write(table, tmp_path / "negatives.parquet")
    flat = write(
        [
            {
                "query": first["query"],
                "doc_id": first["doc_id"],
                "grade": 3,
                "negative_id": doc_id,
                "negative_grade": grade,
                "score": score,
            }
            for doc_id, score, grade in zip(*lists.values(), strict=True)
        ],
        tmp_path / "negatives.csv",
    )
    found = [rows(world, negatives=[path], settings={"negatives": 2}) for path in (nested, flat)]
    assert found[0].dataset[:] == found[1].dataset[:]
    texts = dict(
        zip(world[0]["doc_id"].to_pylist(), document_texts(world[0]).to_pylist(), strict=True)
    )
    data = found[0].dataset
    assert data.column_names == ["query", "document", "negative_1", "negative_2", "label"]
    row = data["query"].index(first["query"])
    while data["document"][row] != texts[first["doc_id"]]:
        row += 1
    assert (data["negative_1"][row], data["negative_2"][row]) == (texts[free[1]], texts[partly])
    counts = found[0].counts["negatives"]
    assert (counts["usable"], counts["of other pairs"], counts["relevant"]) == (3, 5, 2)
    assert counts["random in their place"] == 2 * len(data) - 2
    # Those at random are relevant to nobody's query, and the seed decides which they are.
    relevant = {pair for pair, grade in of_pairs(found[0]).items() if grade > 0}
    relevant.remove((first["query"], texts[partly]))
    for name in ("negative_1", "negative_2"):
        assert not relevant & set(zip(data["query"], data[name], strict=True))
    assert rows(world, negatives=[nested], settings={"negatives": 2}).dataset[:] == data[:]
    assert second["query"] != first["query"]


def test_judged_negatives_are_documents_that_the_same_query_has_at_a_lower_grade(
    world: tuple[pa.Table, Path], tmp_path: Path
) -> None:
    found = rows(world, settings={"judged_negatives": 2})
    grade_of = of_pairs(found)
    data = found.dataset
    drawn: list[set[str]] = []
    for query, document, grade in zip(data["query"], data["document"], data["label"], strict=True):
        lower = {text for (asked, text), at in grade_of.items() if asked == query and at < grade}
        row = len(drawn)
        assert (data["query"][row], data["document"][row]) == (query, document)
        drawn.append({data["negative_1"][row], data["negative_2"][row]})
        assert len(drawn[row]) == 2
        assert len(drawn[row] & lower) == min(2, len(lower))
        for other in drawn[row] - lower:
            assert other != document
            assert not grade_of.get((query, other), 0)
    best = [negatives for negatives, grade in zip(drawn, data["label"], strict=True) if grade == 3]
    assert len(set(map(frozenset, best))) > len(best) / 2
    counts = found.counts["negatives"]
    assert counts["judged"] + counts["random in their place"] == 2 * len(data)
    again = rows(world, settings={"judged_negatives": 2, "seed": 1}).dataset
    assert again["negative_1"][:] != data["negative_1"][:]
    assert rows(world, settings={"judged_negatives": 2}).dataset[:] == data[:]


def test_judged_negatives_come_after_those_of_a_table(
    world: tuple[pa.Table, Path], tmp_path: Path
) -> None:
    first, _ = negatives(world)
    judged = pa.parquet.read_table(world[1]).to_pylist()
    lower = [row["doc_id"] for row in judged if row["query"] == first["query"] and row["grade"] < 3]
    one = {"query": first["query"], "doc_id": first["doc_id"], "negative_id": lower[0]}
    path = write([one], tmp_path / "negatives.jsonl")
    settings = {"judged_negatives": len(lower) - 1}
    data = rows(world, negatives=[path], settings=settings).dataset
    names = [f"negative_{number + 1}" for number in range(len(lower))]
    assert data.column_names == ["query", "document", *names, "label"]
    texts = dict(
        zip(world[0]["doc_id"].to_pylist(), document_texts(world[0]).to_pylist(), strict=True)
    )
    row = list(zip(data["query"], data["document"], strict=True)).index(
        (first["query"], texts[first["doc_id"]])
    )
    assert data["negative_1"][row] == texts[lower[0]]
    # All others, each of them once.
    assert {data[name][row] for name in names} == {texts[doc_id] for doc_id in lower}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"negative_id": "nowhere"}, "column 'negative_id', row 1: the document is not in the"),
        ({"query": " "}, "column 'query', row 1: the cell is null or blank"),
        ({"negative_grade": 7}, "column 'negative_grade', row 1: the grade is none of 0, 1, 2, 3"),
        ({"doc_id": None}, "column 'doc_id', row 1: the cell is null or blank"),
    ],
)
def test_a_bad_row_is_told_by_its_place(
    world: tuple[pa.Table, Path], tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    first, _ = negatives(world)
    good = {
        "query": first["query"],
        "doc_id": first["doc_id"],
        "negative_id": "sea-fox",
        "negative_grade": 0,
        "score": 0.5,
    }
    path = write([good, {**good, **change}], tmp_path / "negatives.parquet")
    with pytest.raises(DataError, match=told):
        rows(world, negatives=[path])


def test_a_column_that_is_missing_or_no_list(world: tuple[pa.Table, Path], tmp_path: Path) -> None:
    path = write([{"query": "a", "doc_id": "fox-sea"}], tmp_path / "few.parquet")
    with pytest.raises(DataError, match="'negative_id': the column is missing"):
        rows(world, negatives=[path])
    one = {"query": "a", "doc_id": "fox-sea", "negative_doc_ids": "sea-fox"}
    with pytest.raises(DataError, match="'negative_doc_ids': the column is no list"):
        rows(world, negatives=[write([one], tmp_path / "flat.parquet")])
    uneven = {
        **one,
        "negative_doc_ids": ["sea-fox"],
        "negative_scores": [0.5, 0.1],
        "negative_grades": [0],
    }
    with pytest.raises(DataError, match="row 0: the lists of negatives, scores and grades differ"):
        rows(world, negatives=[write([uneven], tmp_path / "uneven.parquet")])


def test_negatives_of_other_judgments_are_refused(
    world: tuple[pa.Table, Path], tmp_path: Path
) -> None:
    one = {"query": "other", "doc_id": "fox-sea", "negative_id": "sea-fox"}
    path = write([one], tmp_path / "negatives.jsonl")
    with pytest.raises(DataError, match="none of the 1 negatives can be used: 1 belong to no pair"):
        rows(world, negatives=[path])


def test_settings_that_leave_nothing_to_learn(world: tuple[pa.Table, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no pair has the label 2; the labels are 0, 1\."):
        rows(world, settings={"binary_labels": True, "recipe": {0: 1.0, 2: 1.0}})
    judgments = [
        {"query": f"q{grade}", "doc_id": "fox-sea", "grade": grade, "split": split}
        for grade, split in ((0, "train"), (1, "train"), (3, "dev"))
    ]
    path = write(judgments, tmp_path / "low.jsonl")
    with pytest.raises(DataError, match="no pair to train on has a label above 0"):
        rows((world[0], path), settings={"binary_labels": True})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"warmup": -1}, "warmup must be 0 or above"),
        ({"judged_negatives": -1}, "judged_negatives must be 0 or above"),
        ({"rate": float("nan")}, "rate must be above 0"),
        ({"dims": (0, 16)}, "dims must be 1 or above"),
        ({"checkpoint_steps": 15}, r"checkpoint_steps must be a multiple of log_steps \(10\)"),
        ({"relevant": 2}, "relevant is for binary labels only"),
        ({"recipe": {1: 0.0}}, "the share of 1 must be above 0"),
        ({"lora_dropout": 1.0}, "lora_dropout must be within"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TrainSettings(**settings).check()


def test_the_names_of_settings_are_those_of_its_docstring() -> None:
    told = TrainSettings.__doc__
    assert told is not None
    assert all(f"        {name}: " in told for name in TrainSettings().shown())
