"""Engines, queries, embedders and vectors of every method and seed, each made once.

Every folder is named by what its content follows from, so another method, seed or setting repeats
nothing that is there: methods share engines, and a second comparison does nothing at all.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ssra_engine import __version__
from ssra_engine.build import build
from ssra_engine.comparing.methods import METHODS, Method, adapted
from ssra_engine.comparing.settings import CompareSettings
from ssra_engine.config import Config
from ssra_engine.content import content_key
from ssra_engine.corpus import open_corpus
from ssra_engine.durable import put_file, put_folder
from ssra_engine.embedder.rows import read_training_rows
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.embedder.train import TrainData, train_embedder
from ssra_engine.engine_folder import MANIFEST, engine_options, open_roles, read_engines
from ssra_engine.engines import load_engine
from ssra_engine.errors import ConfigError
from ssra_engine.evaluation.embedding import embed, load_model
from ssra_engine.evaluation.retrieval import Judged
from ssra_engine.prompts import TEMPLATES
from ssra_engine.readers import files_key
from ssra_engine.roles import Roles
from ssra_engine.run import run
from ssra_engine.steps import NoProgress, Progress

__all__ = ["Pipeline", "Trial"]

_log = logging.getLogger(__name__)

# What `build` reads of the configuration; the rest is the run's.
_BUILD_SECTIONS = {"seed", "grades", "input", "model", "annotate"}
_SCORE_SECTIONS = _BUILD_SECTIONS - {"annotate"}


@dataclass(frozen=True)
class Trial:
    """One method under one seed.

    Attributes:
        queries: vectors of the judged queries, float32[Q, D].
        documents: of the judged documents, float32[N, D].
        data: how many pairs of each grade and source the embedder learned from.
        score_model: quality on held-out judgments (see `score_card`) of the score model that graded
            or filtered; None where none did, or nothing was held out.
    """

    queries: np.ndarray
    documents: np.ndarray
    data: dict[str, Any]
    score_model: dict[str, Any] | None


class Pipeline:
    """Makes what is missing in a folder.

    Args:
        settings: the comparison.
        folder: gets engines/, runs/, models/ and vectors/.
        judged: what the embedders are measured on.
        progress: told of each step.

    Raises:
        ConfigError: `prompt` is compared without a pretrained backbone.
    """

    def __init__(
        self,
        settings: CompareSettings,
        folder: Path,
        judged: Judged,
        progress: Progress | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._judged = judged
        self._progress = progress or NoProgress()
        self._config = settings.config()
        self._training = settings.training()
        backbone = self._config.model.backbone
        if "prompt" in settings.methods and backbone is None:
            raise ConfigError(
                "prompt synthesis needs a language model that follows prompts: give "
                "settings.model.backbone, or leave prompt out of methods."
            )
        self._inputs = {
            "corpus": open_corpus(settings.corpus).fingerprint(),
            "judgments": files_key(settings.judgments),
            "pairs": files_key(settings.pairs),
            "backbone": "" if backbone is None else content_key(backbone),
            "base": content_key(settings.base),
        }

    def trial(self, name: str, seed: int) -> Trial:
        """What one method makes under one seed.

        Raises:
            SsraError: as `build`, `run` and `train_embedder` do.
        """
        method = METHODS[name]
        config = adapted(self._config, method, seed)
        if method.writer is None:
            return self._train(method, seed, None, None)
        engines = self._engines(method, config)
        out = self._synthesize(method, config, engines)
        card = read_engines(engines).manifest["figures"]["score"]
        graded = method.reannotate or method.refine
        return self._train(method, seed, out, card.get("held_out") if graded else None)

    def _engines(self, method: Method, config: Config) -> Path:
        pairs = self._settings.pairs if method.reannotate else ()
        sections = config.model_dump(mode="json", include=_BUILD_SECTIONS)
        names = ["corpus", "judgments", "backbone", *(["pairs"] if pairs else [])]
        folder = self._folder / "engines" / _key(sections, self._of(*names))
        if config.model.backbone is not None and not folder.exists():
            self._lay_down(folder, config.model_dump(mode="json", include=_SCORE_SECTIONS))
        build(
            config,
            corpus=self._settings.corpus,
            judgments=self._settings.judgments,
            pairs=pairs,
            output=folder,
            progress=self._progress,
        )
        return folder

    def _lay_down(self, folder: Path, sections: dict[str, Any]) -> None:
        """Copy engines that were made under the same settings of the score model: `build` keeps it.

        A preset's score model depends on the pairs as well, so it is not shared.
        """
        for manifest in sorted(folder.parent.glob(f"*/{MANIFEST}")):
            made = manifest.parent
            if "." in made.name:  # what a kill left
                continue
            config = read_engines(made).manifest["fingerprint"]["config"]
            if {name: config[name] for name in _SCORE_SECTIONS} == sections:
                put_folder(folder, partial(_copy, made))
                return

    def _synthesize(self, method: Method, config: Config, engines: Path) -> Path | None:
        """The folder of a run; None where it kept nothing, which leaves the judgments alone."""
        if self._settings.documents is not None:
            limit = config.input.model_copy(update={"limit": self._settings.documents})
            config = config.model_copy(update={"input": limit})
        config = config.model_copy(update={"grades": read_engines(engines).grades})
        roles = open_roles(engines, config)
        if method.writer == "prompt":
            roles = _as_it_comes(roles, config, self._inputs["backbone"])
        key = _key(config.model_dump(mode="json"), self._inputs["corpus"], roles.fingerprint)
        folder = self._folder / "runs" / key
        result = run(config, self._settings.corpus, roles, folder, self._progress)
        return folder if result.summary["total"]["kept"] else None

    def _train(
        self, method: Method, seed: int, out: Path | None, score_model: dict[str, Any] | None
    ) -> Trial:
        data = TrainData(self._settings.corpus, self._settings.judgments, self._config.grades, out)
        settings = dataclasses.replace(self._training, seed=seed, binary_labels=method.binary)
        wanted = self._settings.pairs_seen
        made = "" if out is None else out.name
        inputs = self._of("corpus", "judgments", "base")
        key = _key(settings.deciding(), inputs, list(self._config.grades), made, wanted)
        folder = self._folder / "models" / key
        if wanted is not None:
            settings = dataclasses.replace(settings, epochs=wanted / self._rows(data, settings))
        trained = train_embedder(self._settings.base, data, folder, settings, self._progress)
        vectors = self._vectors(folder)
        return Trial(*vectors, trained.record["data"], score_model)

    def _of(self, *names: str) -> dict[str, str]:
        return {name: self._inputs[name] for name in names}

    def _rows(self, data: TrainData, settings: TrainSettings) -> int:
        documents = open_corpus(data.corpus).table()
        rows = read_training_rows(
            documents, data.judgments, data.grades, settings, synthetic=data.synthetic
        )
        return len(rows.dataset)

    def _vectors(self, model: Path) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of what is judged, from the file that holds them where there is one."""
        judged = self._judged
        path = self._folder / "vectors" / f"{model.name}-{_key(judged.queries, judged.documents)}"
        if not path.exists():
            self._progress.begin("embed what is judged", 0, 0)
            made = embed(load_model(model), judged.queries, judged.documents)
            buffer = io.BytesIO()
            np.savez(buffer, queries=made[0], documents=made[1])
            put_file(path, buffer.getvalue())
        with np.load(path) as held:
            return held["queries"], held["documents"]


def _as_it_comes(roles: Roles, config: Config, backbone_key: str) -> Roles:
    """The same roles, with the backbone itself as the query model: it understands words only."""
    backbone = str(config.model.backbone)
    options = engine_options(config, config.engine.backend)
    return dataclasses.replace(
        roles,
        template=TEMPLATES["instruct"],
        fingerprint=f"{roles.fingerprint} prompt {backbone_key}",
        open_query=lambda _: load_engine(backbone, **options),
    )


def _copy(source: Path, empty: Path) -> None:
    shutil.copytree(source, empty, dirs_exist_ok=True)


def _key(*parts: Any) -> str:
    text = json.dumps([__version__, *parts], sort_keys=True, default=str)
    return xxhash.xxh3_64_hexdigest(text.encode())
