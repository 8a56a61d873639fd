"""Settings of `ssra-engine train` against each other, by cross-validation over queries.

python benchmarks/cross_validate_embedder.py plan.json --work FOLDER [--folds 0,1]

Every query is held out once and scored by a model that never saw it; figures are of all queries
together, and so are the tests. The plan holds

    corpus, judgments, splits   files, and which splits of the judgments take part
    grades, folds               the scale, and how many folds
    base                        a folder for `train --base`
    common                      fields of TrainSettings that all variants share
    variants                    name -> fields that it has beside them, and `mine`: fields of
                                negatives.settings.Settings and `model`, for hard negatives;
                                `"graded": true` lets the score model grade them, and takes what it
                                calls relevant as pairs to train on
    score_model                 section `model` of a build's configuration: the score model, which
                                learns from the queries that a fold trains on, and no others
    against                     pairs of variants to compare; "base" is the untrained one

What is done is kept in FOLDER, so the same command goes on, and more variants cost only themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssra_engine.building.backbone import prepare_backbone
from ssra_engine.building.data import read_data, template_name
from ssra_engine.building.score_model import make_score_model
from ssra_engine.building.task import Task
from ssra_engine.calibration import Calibration
from ssra_engine.config import Config, load_config
from ssra_engine.content import content_key
from ssra_engine.corpus import open_corpus
from ssra_engine.embedder.base import merge_lora, open_base
from ssra_engine.embedder.fit import fit
from ssra_engine.embedder.rows import read_training_rows
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.engine_folder import engine_options, open_score_model, score_template
from ssra_engine.evaluation.embedding import embed
from ssra_engine.evaluation.measuring import Figures, Settings, compare, measure_scores, summarise
from ssra_engine.evaluation.retrieval import Judged, read_judged
from ssra_engine.hard_negatives import MineTask, mine_to_file
from ssra_engine.judgments import read_split
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.negatives.settings import Settings as MineSettings
from ssra_engine.prompts import TEMPLATES
from ssra_engine.roles import Roles, fake_roles
from ssra_engine.steps import NoProgress

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
            checkpoints = self.work / f"{name}-{fold}.training"
            np.save(path, self._train(name, fold, checkpoints))
            shutil.rmtree(checkpoints, ignore_errors=True)
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

    def _train(self, name: str, fold: int, checkpoints: Path) -> np.ndarray:
        variant = {} if name == "base" else dict(self.plan["variants"][name])
        mine = variant.pop("mine", None)
        settings = TrainSettings(**{**self.plan["common"], **variant})
        settings.check()
        base = Path(self.plan["base"])
        model = open_base(base, settings)
        if name != "base":
            negatives, relevant = ([], []) if mine is None else self._mine(name, fold, mine)
            rows = read_training_rows(
                open_corpus([self.plan["corpus"]]).table(),
                [self.judgments(fold), *relevant],
                self.plan["grades"],
                settings,
                negatives=negatives,
            )
            begun = time.process_time()
            fitted = fit(model, rows.dataset, settings, checkpoints)
            if settings.lora_rank:
                adapter = checkpoints / "adapter"
                shutil.rmtree(adapter, ignore_errors=True)
                merge_lora(model, base, settings, adapter)
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

    def _mine(self, name: str, fold: int, told: dict[str, Any]) -> tuple[list[Path], list[Path]]:
        """Negatives of a fold's training queries, and what the score model found relevant."""
        told = dict(told)
        model, graded = Path(told.pop("model")), told.pop("graded", False)
        negatives = self.work / f"{name}-{fold}.negatives.parquet"
        relevant = self.work / f"{name}-{fold}.relevant.parquet" if graded else None
        task = MineTask(
            corpus=[self.plan["corpus"]],
            judgments=[str(self.judgments(fold))],
            model=model,
            output=negatives,
            relevant=relevant,
            settings=MineSettings(**told),
            grades=tuple(self.plan["grades"]),
            cache=self.work / "cache",
        )
        report = mine_to_file(task, self._score_model(fold) if graded else None)
        tell(mined=negatives.name, **report.figures)
        found = relevant is not None and pq.read_metadata(relevant).num_rows > 0
        return [negatives], [relevant] if relevant is not None and found else []

    def _score_model(self, fold: int) -> Roles:
        """A score model that knows nothing of the queries that the fold holds out."""
        overrides = {"grades": self.plan["grades"], "model": self.plan["score_model"]}
        config = load_config(None, overrides)
        folder = self.work / f"score-{fold}"
        if not (folder / "card.json").exists():
            self._train_score_model(config, fold, folder)
        card = json.loads((folder / "card.json").read_text())
        name = template_name(config)
        options = engine_options(config, config.engine.backend)
        return replace(
            fake_roles(config.grades),  # of which mining asks the score model alone
            fingerprint=content_key(folder),
            template=TEMPLATES[name],
            score_template=score_template(config, name),
            calibration=Calibration(card["temperature"], tuple(card["bias"])),
            open_score=lambda: open_score_model(folder / "score", config, options),
        )

    def _train_score_model(self, config: Config, fold: int, folder: Path) -> None:
        judged = pq.read_table(self.judgments(fold))
        known = self.work / f"known-{fold}.parquet"
        # Without a split, so that a tenth of these queries watches and calibrates it.
        pq.write_table(judged.filter(pc.equal(judged["split"], "train")).drop(["split"]), known)
        data = read_data(config, open_corpus([self.plan["corpus"]]), [str(known)], [])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        task = Task(config, data, folder, {}, None, NoProgress())
        begun = time.process_time()
        card = make_score_model(task, prepare_backbone(task)[0])
        seconds = round(time.process_time() - begun)
        shown = {name: card["held_out"][name] for name in ("rows", "accuracy", "quadratic_kappa")}
        (folder / "card.json").write_text(json.dumps(card))
        tell(
            score_model=folder.name, trained_on=len(data.train), processor_seconds=seconds, **shown
        )


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
