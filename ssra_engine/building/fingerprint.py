"""What an engines folder was made from, and which part of that each of its models depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssra_engine import __version__
from ssra_engine.config import Config
from ssra_engine.corpus import Corpus
from ssra_engine.engine_folder import content_key
from ssra_engine.readers import files_key

__all__ = ["comparator_parts", "fingerprint", "score_model_parts", "training_data_parts"]


def fingerprint(
    config: Config,
    corpus: Corpus,
    judgments: Sequence[str | Path],
    pairs: Sequence[str | Path],
    audits: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Names and contents of all that the models follow from, for the manifest."""
    encoder = config.model.cross_encoder.backbone
    sections = {"seed", "grades", "input", "model", "annotate"}
    parts = {
        "version": __version__,
        "config": config.model_dump(mode="json", include=sections),
        "backbone": "" if config.model.backbone is None else content_key(config.model.backbone),
        "score_backbone": "" if encoder is None else content_key(encoder),
        "corpus": corpus.fingerprint(),
        "judgments": files_key(judgments),
        "pairs": files_key(pairs),
    }
    return parts | ({"audits": files_key(audits)} if audits else {})


def score_model_parts(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What the score model depends on. A preset's tokenizer is trained on the pairs too."""
    parts = training_data_parts(fingerprint)
    model = fingerprint["config"]["model"]
    if model["preset"] is None or model.get("score_model") == "cross-encoder":
        del parts["pairs"]
    return parts | {"config": {k: v for k, v in parts["config"].items() if k != "annotate"}}


def comparator_parts(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What the comparator depends on."""
    model = fingerprint["config"]["model"]
    own = {key: model.get(key) for key in ("train_comparator", "compare")}
    return training_data_parts(fingerprint) | own


def training_data_parts(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What the training data of the query model depend on."""
    config = fingerprint["config"]
    later = {"query", "train_comparator", "compare"}
    model = {key: value for key, value in config["model"].items() if key not in later}
    return fingerprint | {"config": config | {"model": model}}
