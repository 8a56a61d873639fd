"""How often the oracle agrees with the target grade, for each method on one simulated world.

    python benchmarks/measure_method.py WORLD OUTPUT --seed 0 [--methods vanilla,ssra] [--rounds 1]

WORLD is a folder of `ssra-engine simulate`. Methods are those of `compare` that write queries with
a trained model; all share one tiny backbone, one score model, one decoding and one wave of sampling
over the same documents. A line of JSON for each method: of each part of its run and each target
grade, samples and those that the oracle gives it, generated and kept; and the share of queries that
repeat another.
What OUTPUT holds already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from ssra_engine.build import build
from ssra_engine.comparing.methods import METHODS, Method, adapted
from ssra_engine.config import Config, load_config
from ssra_engine.engine_folder import open_roles
from ssra_engine.evaluation.samples import evaluate_samples
from ssra_engine.progress import ProgressBar
from ssra_engine.run import run

_METHODS = "ssra,vanilla,ssra-without-stage-1,ssra-without-stage-2"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("world", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", default=_METHODS)
    given = parser.parse_args()
    base = load_config(
        overrides={"model": {"preset": "tiny"}, "refine": {"rounds": given.rounds}},
    )
    for name in given.methods.split(","):
        method = METHODS[name]
        config = adapted(base, method, given.seed)
        with ProgressBar() as progress:
            engines = _engines(method, config, given.world, given.output, progress)
            corpus = [str(given.world / "corpus.arrow")]
            roles = open_roles(engines, config)
            folder = given.output / name
            run(config, corpus, roles, folder, progress)
        print(json.dumps({"method": name, "seed": given.seed, **_figures(folder)}), flush=True)


def _engines(
    method: Method, config: Config, world: Path, output: Path, progress: ProgressBar
) -> Path:
    """With stage 1 or without: then no annotation is sure enough to teach the query model.

    The click log is given to both, since the tiny backbone's tokenizer is trained on its queries.
    Both start from one folder, in which `build` keeps the score model.
    """
    with_pairs, without = output / "engines", output / "engines-judgments"
    folder = with_pairs if method.reannotate else without
    if not method.reannotate:
        annotate = config.annotate.model_copy(update={"min_confidence": 1.0})
        config = config.model_copy(update={"annotate": annotate})
        if with_pairs.exists() and not without.exists():
            shutil.copytree(with_pairs, without)
    report = build(
        config,
        corpus=[str(world / "corpus.arrow")],
        judgments=[str(world / "judgments.arrow")],
        pairs=[str(world / "pairs.arrow")],
        output=folder,
        progress=progress,
    )
    assert method.reannotate or not any(report.figures["d2q"]["score"])
    return folder


def _figures(folder: Path) -> dict[str, Any]:
    """Of each part of a run: its rounds, then the final synthesis."""
    found = evaluate_samples(folder)
    parts: dict[str, Any] = {}
    for row in found["oracle"]:
        if row["step"] in ("generated", "kept"):
            counts = parts.setdefault(row["part"], {}).setdefault(row["step"], [])
            counts.append([row["samples"], row["agree"]])
    for row in found["diversity"]:
        if row["target"] is None:
            rates = parts[row["part"]].setdefault("repeated", {})
            rates[row["set"]] = round(row["duplicate_rate"], 4)
    return parts


if __name__ == "__main__":
    main()
