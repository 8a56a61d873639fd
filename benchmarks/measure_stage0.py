"""What descriptions and reasons are worth to a score model, in a simulated world.

    python benchmarks/measure_stage0.py teacher --documents 4000 --seed 1000 --config tiny.yaml \\
        --output teacher
    python benchmarks/measure_stage0.py world --documents 2000 --seed 0 --output world0
    ssra-engine rewrite --input world0/corpus.arrow --model teacher --prompts plain \\
        --output rewritten0
    python benchmarks/measure_stage0.py score --corpus rewritten0/corpus \\
        --judgments world0/judgments.arrow --config tiny.yaml
    python benchmarks/measure_stage0.py score --corpus world0/corpus.arrow \\
        --judgments world0/reasoned.arrow --rationales --config tiny.yaml

The configuration is that of `build`, as in ``model: {preset: tiny, max_document_tokens: 160}``. The
files titles and described of a world are its lower and its upper bound.

The videos get no text of their own (their hashtags go), and OCR and ASR of which every character is
lost or taken for another with a chance of `--noise`. The teacher is a tiny model, trained from
scratch to write the facets of the videos of another world from such fields; no model here has seen
a video that the score model is measured on. The reasons are the oracle's: which of the facets that
a query asks for the video has.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import pyarrow as pa
import torch

from ssra_engine.building.backbone import prepare_backbone
from ssra_engine.building.data import read_data, template_name
from ssra_engine.building.score_model import make_score_model
from ssra_engine.building.task import Task
from ssra_engine.config import Config, load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.engine_folder import engine_options, open_score_model
from ssra_engine.judgments import read_split
from ssra_engine.models.backbone import save_backbone
from ssra_engine.models.packing import Example, pack
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.score_card import quality, score_card
from ssra_engine.models.tiny import new_backbone, pretrain, train_tokenizer
from ssra_engine.models.training import train
from ssra_engine.prompts import STOP, TEMPLATES
from ssra_engine.simulate import simulate, write
from ssra_engine.simulation.lexicon import FACETS, VALUES
from ssra_engine.simulation.oracle import parse_query
from ssra_engine.stages.annotate import d2q_rows, score_requests
from ssra_engine.steps import NoProgress

_DESCRIPTION_TOKENS = 64
_COMMA = {"zh": "，", "en": ", "}


@click.group()
def main() -> None:
    """Make worlds and teachers, and measure score models."""
    torch.set_num_threads(1)


@main.command()
@click.option("--documents", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--noise", type=float, default=0.1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def world(documents: int, seed: int, noise: float, output: Path) -> None:
    """A world with noisy OCR and ASR, as it would be described by who knows, and with reasons."""
    made = simulate(documents, seed)
    write(made, output)
    noisy = noisy_corpus(made.corpus, noise, seed)
    plain = noisy.select(["doc_id", "title"])
    described = plain.append_column("text", pa.array(descriptions(made.corpus)))
    reasoned = made.judgments.append_column(
        "rationale", pa.array(reasons(made.judgments, made.corpus))
    )
    tables = {"corpus": noisy, "titles": plain, "described": described, "reasoned": reasoned}
    for name, table in tables.items():
        with pa.ipc.new_file(output / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)


@main.command()
@click.option("--documents", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--noise", type=float, default=0.1, show_default=True)
@click.option("--config", "path", required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def teacher(documents: int, seed: int, noise: float, path: str, output: Path) -> None:
    """Train a tiny model to describe the videos of a world of its own."""
    config = load_config(path)
    made = simulate(documents, seed)
    template = TEMPLATES["plain"]
    prefixes = template.documents(noisy_corpus(made.corpus, noise, seed)).to_pylist()
    answers = [f" {text}" for text in descriptions(made.corpus, said=True)]
    tokenizer = train_tokenizer([*prefixes, *answers], config.model.tiny.vocabulary)
    encoder = QuestionEncoder(
        tokenizer,
        template,
        len(config.grades),
        max_document_tokens=config.model.max_document_tokens,
        max_query_tokens=_DESCRIPTION_TOKENS,
    )
    context = config.model.max_document_tokens + _DESCRIPTION_TOKENS + 64
    network = new_backbone(tokenizer, config.model.tiny, context, seed)
    figures = pretrain(network, encoder, prefixes, config.model.tiny, seed=seed)
    ask, stop = _tokens(tokenizer, [template.rewrite_suffix(), STOP])
    written = _tokens(tokenizer, answers)
    examples = [
        Example(document, tuple(ask), (*answer[:_DESCRIPTION_TOKENS], *stop))
        for document, answer in enumerate(written)
    ]
    sequences = pack(encoder.prefixes(prefixes), examples)
    figures |= train(network, sequences, config.model.query, pad_id=encoder.pad_id, seed=seed)
    save_backbone(network, tokenizer, output)
    print(json.dumps(figures))


@main.command()
@click.option("--corpus", required=True)
@click.option("--judgments", required=True)
@click.option("--config", "path", required=True)
@click.option("--rationales", is_flag=True, help="Train on them; score with and without writing.")
@click.option("--seed", type=int, default=0)
def score(corpus: str, judgments: str, path: str, rationales: bool, seed: int) -> None:
    """Train a score model, and print its quality on the judgments of the split test."""
    modes = ("train", "write") if rationales else ("none",)
    config = load_config(path, {"seed": seed, "model.rationales": modes[0]})
    data = read_data(config, open_corpus([corpus]), [judgments], [])
    judged = read_split([judgments], config.grades, "test", doc_ids=data.documents["doc_id"])
    test = d2q_rows(judged, data.documents, "judgment")
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(config, data, Path(scratch), {}, None, NoProgress())
        card = make_score_model(task, prepare_backbone(task)[0])
        for mode in modes:
            asked = load_config(path, {"seed": seed, "model.rationales": mode})
            held_out = _logits(asked, task.folder / "score", data.held_out)
            mine = score_card(data.train, data.held_out, held_out, 4, 1.0, card["training"])
            logits = _logits(asked, task.folder / "score", test) / mine["temperature"]
            found = _figures(logits, np.asarray(mine["bias"]), test["grade"].to_numpy())
            told = {"corpus": corpus, "rationales": mode, "seed": seed}
            print(json.dumps(told | found), flush=True)


def _logits(config: Config, folder: Path, rows: pa.Table) -> np.ndarray:
    """Label logits float64[N, 4] of a score model that is asked as `config` says."""
    engine = open_score_model(folder, config, engine_options(config, "auto"))
    requests = score_requests(rows, TEMPLATES[template_name(config)], 4)
    parts = [batch.column("logits") for batch in engine.score_batches(requests, list("0123"))]
    flat = np.concatenate([part.flatten().to_numpy(zero_copy_only=False) for part in parts])
    return flat.astype(np.float64).reshape(-1, 4)


def _figures(logits: np.ndarray, bias: np.ndarray, grades: np.ndarray) -> dict[str, Any]:
    """As the judged grades are mixed, and (evened) were all grades judged equally often."""
    plain, evened = (quality(x, grades.astype(np.int64)) for x in (logits, logits + bias))
    confusion = np.array(evened["confusion"])
    return {
        "rows": plain["rows"],
        "accuracy": plain["accuracy"],
        "quadratic_kappa": plain["quadratic_kappa"],
        "calibration_error": plain["calibration_error"],
        "evened_recall": float((confusion.diagonal() / confusion.sum(1).clip(1)).mean()),
        "evened_f1": evened["f1"],
    }


def noisy_corpus(corpus: pa.Table, noise: float, seed: int) -> pa.Table:
    """Documents without text of their own, and with OCR and ASR that were read and heard badly."""
    rng = Random(seed)
    columns = {
        name: [_garble(text, noise, rng) for text in corpus[name].to_pylist()]
        for name in ("ocr", "asr")
    }
    blank = pa.array([""] * len(corpus))
    kept = corpus.select(["doc_id", "title"]).append_column("text", blank)
    for name, texts in columns.items():
        kept = kept.append_column(name, pa.array(texts, pa.string()))
    return kept


def _garble(text: str, noise: float, rng: Random) -> str:
    """Characters are lost, or taken for others of the same text."""
    letters = [c for c in text if not c.isspace()]
    made = []
    for character in text:
        if character.isspace() or rng.random() >= noise:
            made.append(character)
        elif rng.random() < 0.5:
            made.append(letters[int(rng.random() * len(letters))])
    return "".join(made)


def descriptions(corpus: pa.Table, *, said: bool = False) -> list[str]:
    """The facets of each video in its language: all, or those that its fields say.

    The series of an entity that is said counts as said.
    """
    return [_describe(row, said=said) for row in corpus.to_pylist()]


def _describe(video: dict[str, Any], *, said: bool) -> str:
    facets = video["facets"]
    language = facets["language"]
    fields = "\n".join(video[name] for name in ("title", "ocr", "asr"))
    own = {f: v for f in FACETS for v in VALUES[f] if v.name == facets[f]}
    told = {f for f, v in own.items() if any(form in fields for form in v.forms[language])}
    told |= {"series"} if "entity" in told else set()
    return _COMMA[language].join(
        value.forms[language][0] for facet, value in own.items() if facet in told or not said
    )


def reasons(judgments: pa.Table, corpus: pa.Table) -> list[str | None]:
    """Which of what a query asks for its video has, by facet; None where it is not understood."""
    facets = dict(zip(corpus["doc_id"].to_pylist(), corpus["facets"].to_pylist(), strict=True))
    pairs = zip(judgments["query"].to_pylist(), judgments["doc_id"].to_pylist(), strict=True)
    return [_reason(parse_query(query), facets[doc_id]) for query, doc_id in pairs]


def _reason(asked: dict[str, str] | None, facets: dict[str, str]) -> str | None:
    if asked is None:
        return None
    return ", ".join(f"{f} {'yes' if facets[f] == name else 'no'}" for f, name in asked.items())


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


if __name__ == "__main__":
    main()
