"""Settings of `ssra-engine train` against each other, by cross-validation over queries.

python benchmarks/cross_validate_embedder.py plan.json --work FOLDER [--folds 0,1]

Every query is held out once and scored by a model that never saw it; figures are of all queries
together, and so are the tests. The plan holds

    corpus, judgments, splits   files, and which splits of the judgments take part
    grades, folds               the scale, and how many folds
    base                        a folder for `train --base`
    common                      fields of TrainSettings that all variants share
    variants                    name -> fields that it has beside them, and `mine`: fields of
                                negatives.settings.Settings, `model`, and `engines`, folders with
                                {fold} in their names, for hard negatives of their own
    against                     pairs of variants to compare; "base" is the untrained one

What is done is kept in FOLDER, so the same command goes on, and more variants cost only themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssra_engine.config import load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.embedder.base import merge_lora, open_base
from ssra_engine.embedder.fit import fit
from ssra_engine.embedder.rows import read_training_rows
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.engine_folder import open_roles, read_engines
from ssra_engine.evaluation.embedding import embed
from ssra_engine.evaluation.measuring import Figures, Settings, compare, measure_scores, summarise
from ssra_engine.evaluation.retrieval import Judged, read_judged
from ssra_engine.hard_negatives import MineTask, mine_to_file
from ssra_engine.judgments import read_split
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.negatives.settings import Settings as MineSettings

SHOWN = ("ndcg_exp@10", "ndcg_linear@10", "ap_mean", "ap_ge1", "ap_ge2", "ap_ge3", "spearman")


class CrossValidation:
    """A plan, and the folder of what is done of it."""

    def __init__(self, plan: dict[str, Any], work: Path) -> None:
        self.plan, self.work = plan, work
        work.mkdir(parents=True, exist_ok=True)
        self._write_folds()

    def judgments(self, fold: int) -> Path:
        """The judgments in which the queries of a fold are dev, and the others train."""
        return self.work / f"judgments-{fold}.parquet"

    def held_out(self, fold: int) -> Judged:
        """The pairs that models of the fold are measured on."""
        files = [str(self.judgments(fold))]
        told = Settings(min_list=1)
        return read_judged([self.plan["corpus"]], files, self.plan["grades"], "dev", told)

    def scores(self, name: str, fold: int) -> np.ndarray:
        """Cosines of the held-out pairs by a model trained as the variant says, float32[P]."""
        path = self.work / f"{name}-{fold}.npy"
        if not path.exists():
            found = self._train(name, fold)
            np.save(path, found)
        found = np.load(path)
        assert isinstance(found, np.ndarray)
        return found

    def _write_folds(self) -> None:
        plan = self.plan
        parts = [read_split([plan["judgments"]], plan["grades"], name) for name in plan["splits"]]
        pairs = pa.concat_tables(parts).combine_chunks()
        keys = hash_strings(normalise(pairs["query"].combine_chunks()))
        fold = np.unique(keys, return_inverse=True)[1] % plan["folds"]
        for number in range(plan["folds"]):
            split = pa.array(np.where(fold == number, "dev", "train"))
            at = pairs.column_names.index("split")
            pq.write_table(pairs.set_column(at, "split", split), self.judgments(number))

    def _train(self, name: str, fold: int) -> np.ndarray:
        variant = {} if name == "base" else dict(self.plan["variants"][name])
        mine = variant.pop("mine", None)
        settings = TrainSettings(**{**self.plan["common"], **variant})
        settings.check()
        base = Path(self.plan["base"])
        model = open_base(base, settings)
        if name != "base":
            negatives = [] if mine is None else [self._mine(name, fold, mine)]
            rows = read_training_rows(
                open_corpus([self.plan["corpus"]]).table(),
                [self.judgments(fold)],
                self.plan["grades"],
                settings,
                negatives=negatives,
            )
            begun = time.process_time()
            checkpoints = self.work / f"{name}-{fold}.training"
            fitted = fit(model, rows.dataset, settings, checkpoints)
            if settings.lora_rank:
                merge_lora(model, base, settings, checkpoints / "adapter")
            shutil.rmtree(checkpoints)
            tell(
                variant=name,
                fold=fold,
                steps=fitted.steps,
                processor_seconds=round(time.process_time() - begun),
                losses=[entry["loss"] for entry in (fitted.curve[0], fitted.curve[-1])],
                temperature=round(fitted.temperature, 4),
                rows=rows.counts,
            )
        held = self.held_out(fold)
        queries, documents = (
            side / np.linalg.norm(side, axis=1, keepdims=True)
            for side in embed(model, held.queries, held.documents, batch_size=64)
        )
        return np.einsum("pd,pd->p", queries[held.pairs.query], documents[held.pairs.document])

    def _mine(self, name: str, fold: int, told: dict[str, Any]) -> Path:
        told = dict(told)
        model, engines = Path(told.pop("model")), told.pop("engines", None)
        grades, roles = tuple(self.plan["grades"]), None
        if engines is not None:
            folder = Path(engines.format(fold=fold))
            built = read_engines(folder)
            of_engines = {"grades": built.grades, "model.preset": built.config.model.preset}
            grades, roles = built.grades, open_roles(folder, load_config(None, of_engines))
        output = self.work / f"{name}-{fold}.negatives.parquet"
        task = MineTask(
            corpus=[self.plan["corpus"]],
            judgments=[str(self.judgments(fold))],
            model=model,
            output=output,
            settings=MineSettings(**told),
            grades=grades,
            cache=self.work / "cache",
        )
        tell(mined=output.name, **mine_to_file(task, roles).figures)
        return output


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def together(parts: list[Judged]) -> Judged:
    """The held-out pairs of several folds as one; a document in two folds is there twice."""
    first = parts[0]
    for one in parts[1:]:
        pairs = type(first.pairs)(
            np.concatenate([first.pairs.query, one.pairs.query + len(first.queries)]),
            np.concatenate([first.pairs.document, one.pairs.document + len(first.documents)]),
            np.concatenate([first.pairs.grade, one.pairs.grade]),
            [*first.pairs.key, *one.pairs.key],
        )
        first = Judged(
            [*first.queries, *one.queries], [*first.documents, *one.documents], pairs, "dev"
        )
    return first


def show(title: str, summary: dict[str, Any], *, signed: bool = False) -> None:
    """A line for each figure, x 100."""
    print(title)
    for kind in ("per_query", "pooled"):
        for figure in SHOWN:
            one = summary[kind].get(figure)
            if one is None or one["value"] is None:
                continue
            form = "{:+7.2f}" if signed else "{:7.2f}"
            cells = [form.format(100 * one[end]) for end in ("value", "low", "high")]
            p = "" if one.get("p") is None else f"  p = {one['p']:.4f}"
            print(f"  {kind:9} {figure:14} {cells[0]} [{cells[1]}, {cells[2]}]{p}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", help="only these, as 0,1; all of them by default")
    parser.add_argument("--variants", help="only these, as a,b; all of them by default")
    args = parser.parse_args()
    plan = json.loads(args.plan.read_text())
    validation = CrossValidation(plan, args.work)
    folds = range(plan["folds"]) if args.folds is None else [*map(int, args.folds.split(","))]
    names = ["base", *(args.variants.split(",") if args.variants else plan["variants"])]
    for name in names:
        for fold in folds:
            validation.scores(name, fold)
    held = together([validation.held_out(fold) for fold in folds])
    settings = Settings(precisions=("float32",))
    found: dict[str, Figures] = {}
    for name in names:
        joined = np.concatenate([validation.scores(name, fold) for fold in folds])
        found[name] = measure_scores(held.pairs, joined, settings)
        show(name, summarise(found[name], held.pairs, settings))
    for ours, theirs in plan["against"]:
        if ours in found and theirs in found:
            difference = compare(found[ours], found[theirs], held.pairs, settings)
            show(f"{ours} minus {theirs}", difference, signed=True)


if __name__ == "__main__":
    main()
