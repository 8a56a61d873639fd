"""The simulated world: the oracle's truth table, its parser, what the default world promises."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssra_engine.errors import ConfigError, DataError, StoreError
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS
from ssra_engine.simulate import (
    World,
    describe,
    is_simulated,
    oracle_grade,
    parse_query,
    simulate,
    write,
)
from ssra_engine.simulation.lexicon import FACETS, FILLERS, VALUES
from ssra_engine.simulation.phrases import HOOKS

SEEDS = (0, 1, 2)


@cache
def world(seed: int) -> World:
    return simulate(2000, seed)


@cache
def documents(seed: int) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in world(seed).corpus.to_pylist()}


DRAMA = {
    "facets": {
        "language": "zh",
        "series": "changan rain",
        "entity": "shen xinghe",
        "episode": "episode 3",
        "aspect": "outfit",
        "intent": "tutorial",
        "style": "cozy",
        "place": "chengdu",
        "time": None,
    }
}


@pytest.mark.parametrize(
    ("query", "grade"),
    [
        # 3: precisely and completely
        ("沈星河", 3),
        ("沈星河 穿搭", 3),
        ("长安夜雨 第3集", 3),
        ("长安夜雨 沈星河 第3集 穿搭 教程 治愈 成都", 3),
        ("shen xinghe outfit", 3),
        ("changan rain episode 3 outfit guide", 3),
        ("cozy shen xinghe outfit tutorial in chengdu", 3),
        # 2: most of it, something non-critical is missing
        ("沈星河 穿搭 搞笑", 2),
        ("沈星河 教程 北京", 2),
        ("沈星河 穿搭 春节", 2),
        ("沈星河 穿搭 教程 搞笑 北京", 2),
        ("shen xinghe outfit funny", 2),
        ("shen xinghe outfit in 2024", 2),
        ("changan rain tutorial in new york", 2),
        # 1: the key is related, an important aspect does not match
        ("沈星河 台词", 1),
        ("沈星河 穿搭 测评", 1),
        ("沈星河 第4集", 1),
        ("长安夜雨 打戏", 1),
        ("沈星河 台词 治愈 成都", 1),
        ("shen xinghe quotes", 1),
        ("shen xinghe outfit review", 1),
        ("shen xinghe ep 4 outfit", 1),
        # 1: too much is missing to be most of it
        ("沈星河 搞笑", 1),
        ("shen xinghe outfit funny beijing", 1),
        # 0: another key, whatever else agrees
        ("顾长歌 穿搭 教程", 0),
        ("长安夜雨 顾长歌 第3集", 0),
        ("霸", None),
        ("宫保鸡丁 火候", 0),
        ("gu changge outfit tutorial", 0),
        ("mapo tofu seasoning", 0),
        ("cloud academy outfit", 0),
    ],
)
def test_truth_table(query: str, grade: int | None) -> None:
    assert oracle_grade(query, DRAMA) == grade


def test_a_facet_that_the_document_lacks_is_missed() -> None:
    lacking = {"facets": DRAMA["facets"] | {"episode": None, "style": None}}
    assert oracle_grade("沈星河 穿搭 第3集", lacking) == 1
    assert oracle_grade("沈星河 穿搭 治愈", lacking) == 2


@pytest.mark.parametrize(
    "query",
    [
        "沈星河 穿搭 治愈",
        "穿搭 治愈 沈星河",
        "沈星河穿搭治愈",
        "  沈 星 河　穿 搭，治愈！",
        "想看沈星河的治愈穿搭视频",
        "沈星河 穿搭 治愈 治愈",
        "Shen Xinghe outfit cozy",
        "COZY OUTFIT SHEN  XINGHE",
        "shen xinghe's outfit, cozy!",
        "show me a cozy shen xinghe outfit video",
        "ｓｈｅｎ ｘｉｎｇｈｅ outfit cozy",
        "沈星河 outfit 治愈",
        "cozy沈星河outfit",
    ],
)
def test_order_case_space_fillers_and_language_do_not_matter(query: str) -> None:
    assert parse_query(query) == {"entity": "shen xinghe", "aspect": "outfit", "style": "cozy"}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "，。！",
        "视频",
        "show me the best video",
        "穿搭 教程",
        "cozy outfit tutorial",
        "沈星河 量子纠缠",
        "沈星",
        "沈星河穿",
        "shen xinghe outfi",
        "shenxinghe outfit",
        "xshen xinghe",
        "shen xinghe outfits",
        "ep 3x shen xinghe",
        "沈星河 第30集",
        "沈星河 穿搭 台词",
        "沈星河 顾长歌",
        "沈星河 成都 北京",
        "云上书院 沈星河",
        "沈星河 连招",
        "宫保鸡丁 第3集",
        "霜狼 第3集",
        "沈星河 穿搭 穿搭 穿搭",
        "the the the shen xinghe",
        "T: 沈星河 G:3",
        "沈星河 \N{REPLACEMENT CHARACTER}x",
    ],
)
def test_what_cannot_be_understood_is_not_parsed(query: str) -> None:
    assert parse_query(query) is None
    assert oracle_grade(query, DRAMA) is None


@given(st.text(max_size=24))
def test_any_text_is_graded_or_rejected(query: str) -> None:
    assert oracle_grade(query, DRAMA) in (None, 0, 1, 2, 3)


@given(st.lists(st.sampled_from("qzxvkj字天乱码随机"), min_size=1, max_size=12), st.integers(0, 9))
def test_gibberish_beside_a_good_query_is_rejected(letters: list[str], seed: int) -> None:
    noise = "".join(letters)
    words = ["沈星河", "穿搭", noise]
    random.Random(seed).shuffle(words)
    assert parse_query(" ".join(words)) is None
    assert parse_query(noise) is None


def test_every_form_of_every_value_is_understood_beside_every_other() -> None:
    """No two words run into each other, even where Chinese is written without spaces."""
    for facet in set(FACETS) - {"entity", "series"}:
        for value in VALUES[facet]:
            for language, forms in value.forms.items():
                glue = "" if language == "zh" else " "
                for entity in VALUES["entity"]:
                    if value.kind not in (None, entity.kind):
                        continue
                    wanted = {"entity": entity.name, facet: value.name}
                    key = entity.forms[language][0]
                    assert parse_query(key + glue + forms[-1]) == wanted
                    assert parse_query(forms[0] + glue + key) == wanted


def test_series_and_entities_are_told_apart() -> None:
    for entity in VALUES["entity"]:
        series = VALUES["series"][entity.parent]
        for language, glue in (("zh", ""), ("en", " ")):
            query = series.forms[language][0] + glue + entity.forms[language][0]
            assert parse_query(query) == {"series": series.name, "entity": entity.name}


def test_names_are_unique_and_no_filler_is_a_value() -> None:
    for values in VALUES.values():
        assert len({value.name for value in values}) == len(values)
    meanings: dict[str, set[tuple[str, str]]] = {}
    for facet, values in VALUES.items():
        for value in values:
            for form in {form for forms in value.forms.values() for form in forms}:
                meanings.setdefault(form, set()).add((facet, value.name))
    assert [form for form, meant in meanings.items() if len(meant) > 1] == []
    assert not set(meanings) & {word for words in FILLERS.values() for word in words.split(",")}


def test_a_document_of_another_corpus_is_refused() -> None:
    with pytest.raises(DataError, match=r"carries no facets.*simulate"):
        oracle_grade("沈星河", {"doc_id": "1", "title": "沈星河"})


@pytest.mark.parametrize("seed", SEEDS)
def test_the_oracle_agrees_with_every_judgment(seed: int) -> None:
    for row in world(seed).judgments.to_pylist():
        assert oracle_grade(row["query"], documents(seed)[row["doc_id"]]) == row["grade"], row


@pytest.mark.parametrize("seed", SEEDS)
def test_grades_are_as_skewed_as_in_life(seed: int) -> None:
    table = world(seed).judgments
    for split in ("train", "dev", "test"):
        grades = Counter(row["grade"] for row in table.to_pylist() if row["split"] == split)
        total = sum(grades.values())
        assert (grades[1] + grades[2]) / total <= 0.10
        assert min(grades[1], grades[2]) / total >= 0.025
        assert min(grades[0], grades[3]) / total >= 0.35
    assert 2000 <= Counter(table.column("split").to_pylist())["train"] <= 2500


@pytest.mark.parametrize("seed", SEEDS)
def test_copying_the_title_reaches_no_intermediate_grade(seed: int) -> None:
    grades = Counter(oracle_grade(row["title"], row) for row in documents(seed).values())
    assert set(grades) <= {None, 0, 3}
    assert grades[3] > 0


@pytest.mark.parametrize("hook", [hook for hooks in HOOKS.values() for hook in hooks])
def test_the_end_of_a_title_is_not_part_of_a_query(hook: str) -> None:
    assert parse_query(f"沈星河 穿搭{hook}") is None


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_no_query_however_it_is_worded(seed: int) -> None:
    splits: dict[str, set[str]] = {}
    for row in world(seed).judgments.to_pylist():
        asked = json.dumps(parse_query(row["query"]), sort_keys=True)
        splits.setdefault(asked, set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert set().union(*splits.values()) == {"train", "dev", "test"}


@pytest.mark.parametrize("seed", SEEDS)
def test_judged_zeros_include_hard_ones(seed: int) -> None:
    """Useless documents often share the series or the aspect asked for, or name the entity."""
    hard = Counter[str]()
    zeros = [row for row in world(seed).judgments.to_pylist() if row["grade"] == 0]
    parents = {v.name: VALUES["series"][v.parent].name for v in VALUES["entity"]}
    zh = {v.name: v.forms for v in VALUES["entity"]}
    for row in zeros:
        asked, document = parse_query(row["query"]), documents(seed)[row["doc_id"]]
        assert asked is not None
        facets = document["facets"]
        hard["topic"] += asked.get("aspect") == facets["aspect"]
        if "entity" in asked:
            name = zh[asked["entity"]][facets["language"]][0]
            hard["sibling"] += parents[asked["entity"]] == facets["series"]
            hard["named"] += name in document["asr"]
    assert hard["topic"] > 0.15 * len(zeros)
    assert hard["sibling"] > 0.15 * len(zeros)
    assert hard["named"] > 0.05 * len(zeros)


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluation_queries_have_lists_of_ten_and_popular_queries_many_documents(seed: int) -> None:
    rows = world(seed).judgments.to_pylist()
    lists = {
        split: Counter(row["query"] for row in rows if row["split"] == split)
        for split in ("train", "dev", "test")
    }
    deep = [count >= 10 for split in ("dev", "test") for count in lists[split].values()]
    assert sum(deep) >= 0.7 * len(deep)
    sizes = sorted(lists["train"].values())
    assert sizes[-1] >= 4 * sizes[len(sizes) // 2]
    assert len({(row["query"], row["doc_id"]) for row in rows}) == len(rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_click_log_is_rich_in_partial_matches(seed: int) -> None:
    rows = world(seed).pairs.to_pylist()
    assert len(rows) == len({(row["query"], row["doc_id"]) for row in rows}) == 6000
    grades = [oracle_grade(row["query"], documents(seed)[row["doc_id"]]) for row in rows]
    shares = {grade: count / len(rows) for grade, count in Counter(grades).items()}
    assert set(shares) == {0, 1, 2, 3}
    assert min(shares.values()) > 0.12
    per_document: dict[str, set[int | None]] = {}
    clicks: dict[int | None, list[int]] = {}
    for row, grade in zip(rows, grades, strict=True):
        per_document.setdefault(row["doc_id"], set()).add(grade)
        clicks.setdefault(grade, []).append(row["clicks"])
    mixed = [len(found) >= 2 for found in per_document.values()]
    assert sum(mixed) > 0.6 * len(mixed)
    assert sum(clicks[3]) / len(clicks[3]) > sum(clicks[0]) / len(clicks[0])
    assert min(row["clicks"] for row in rows) >= 1


def test_documents_read_like_videos() -> None:
    rows = list(documents(0).values())
    languages = Counter(row["facets"]["language"] for row in rows)
    assert 0.3 < languages["en"] / len(rows) < 0.5
    for row in rows:
        texts = [row[column] for column in DOCUMENT_TEXT_COLUMNS]
        assert row["title"].strip()
        assert not any("{" in text or "}" in text or "facets" in text for text in texts)
        assert sum(map(len, texts)) < 400
    said = sum(_says(row, "entity") for row in rows) / len(rows)
    assert 0.93 < said < 0.99
    clean_ocr = sum(_says(row, "entity", ("ocr",)) for row in rows) / len(rows)
    assert 0.2 < clean_ocr < 0.6


def _says(
    row: dict[str, Any], facet: str, columns: tuple[str, ...] = DOCUMENT_TEXT_COLUMNS
) -> bool:
    facets = row["facets"]
    (value,) = (v for v in VALUES[facet] if v.name == facets[facet])
    return any(value.forms[facets["language"]][0] in row[column] for column in columns)


def test_one_seed_one_world(tmp_path: Any) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write(simulate(300, seed), tmp_path / name)
    for file in ("corpus.arrow", "judgments.arrow", "pairs.arrow"):
        first, same, other = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert first == same
        assert first != other


def test_written_tables_say_that_they_are_simulated(tmp_path: Any) -> None:
    made = simulate(50, 1)
    write(made, tmp_path)
    for name in ("corpus", "judgments", "pairs"):
        with pa.ipc.open_file(str(tmp_path / f"{name}.arrow")) as reader:
            assert is_simulated(reader.schema)
            assert reader.read_all().equals(getattr(made, name))
    assert not is_simulated(pa.schema([pa.field("doc_id", pa.string())]))
    assert made.judgments.schema.field("grade").type == pa.int8()


def test_write_reports_a_folder_that_cannot_be_made(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        write(simulate(5, 0), tmp_path / "file" / "world")


def test_sizes_can_be_chosen() -> None:
    made = simulate(400, 3, judgments=100, pairs=50)
    assert (len(made.corpus), len(made.judgments), len(made.pairs)) == (400, 100, 50)
    assert len(simulate(400, 3, judgments=0, pairs=0).judgments) == 0


@pytest.mark.parametrize("documents", [1, 2, 7, 40])
def test_the_smallest_worlds_are_made(documents: int) -> None:
    made = simulate(documents, 0)
    assert len(made.corpus) == documents
    known = set(made.corpus.column("doc_id").to_pylist())
    assert set(made.pairs.column("doc_id").to_pylist()) <= known
    assert set(made.judgments.column("doc_id").to_pylist()) <= known


@pytest.mark.parametrize(("documents", "seed"), [(0, 0), (-1, 0), (5, -1)])
def test_sizes_out_of_range_are_refused(documents: int, seed: int) -> None:
    with pytest.raises(ConfigError):
        simulate(documents, seed)


def test_describe_counts() -> None:
    told = describe(world(0))
    json.dumps(told)
    assert next(iter(told)) == "simulated"
    assert told["documents"] == sum(told["documents_by_language"].values()) == 2000
    assert told["judgments"] == sum(told["judgments_by_grade"].values())
    assert told["judgments"] == sum(told["judgments_by_split"].values()) == 3600
    assert told["pairs"] == 6000
