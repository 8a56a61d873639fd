"""Score models of both kinds on the same judgments: quality on `dev`, and processor time.

    python benchmarks/measure_score_model.py --corpus corpus.arrow --judgments judgments.parquet \\
        --config tiny.yaml

The configuration is that of `build`, of which only the score model is made; the judgments' `dev`
split stops its training, calibrates it and is measured on, as in a build. Prints a JSON line.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from ssra_engine.building.backbone import prepare_backbone
from ssra_engine.building.data import BuildData, read_data, template_name
from ssra_engine.building.score_model import make_score_model
from ssra_engine.building.task import Task
from ssra_engine.config import Config, load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.engine_folder import engine_options, open_score_model, score_template
from ssra_engine.stages.annotate import score_requests
from ssra_engine.steps import NoProgress

Result = TypeVar("Result")


@click.command()
@click.option("--corpus", multiple=True, required=True)
@click.option("--judgments", multiple=True, required=True)
@click.option("--config", "path", required=True)
@click.option("--train-rows", type=int, help="Train on so many of the judgments only.")
def main(
    corpus: tuple[str, ...], judgments: tuple[str, ...], path: str, train_rows: int | None
) -> None:
    """Train one score model and print its card and times."""
    config = load_config(path)
    torch.set_num_threads(1)
    opened = open_corpus(corpus)
    data = read_data(config, opened, judgments, [])
    if train_rows is not None:
        data = dataclasses.replace(data, train=data.train.slice(0, train_rows), rationales=None)
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(config, data, Path(scratch), {}, None, NoProgress())
        prepared, preparing = _timed(lambda: prepare_backbone(task))
        card, training = _timed(lambda: make_score_model(task, prepared[0]))
        engine = open_score_model(
            task.folder / "score", config, engine_options(config, config.engine.backend)
        )
        pairs, scoring = _timed(lambda: _score(engine, config, data))
    held_out = {name: card["held_out"][name] for name in _SHOWN}
    figures = {
        "model": engine.stats.notes[0],
        "train_rows": len(data.train),
        **held_out,
        "temperature": card["temperature"],
        "pretraining_cpu_seconds": preparing,
        "training_cpu_seconds": training,
        "pairs_per_cpu_second": pairs / scoring,
    }
    click.echo(json.dumps(figures))


_SHOWN = ("rows", "accuracy", "quadratic_kappa", "f1", "calibration_error", "confusion")


def _score(engine: Any, config: Config, data: BuildData) -> int:
    template = score_template(config, template_name(config))
    labels = [str(grade) for grade in config.grades]
    requests = score_requests(data.held_out, template, len(labels))
    return sum(scores.num_rows for scores in engine.score_batches(requests, labels))


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What it returns, and the processor seconds it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


if __name__ == "__main__":
    main()
