"""The export of docs/guides/embedder.md, where the extra of sentence-transformers is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from worlds import save_encoder

from ssra_engine.embedder.base import open_base
from ssra_engine.embedder.settings import TrainSettings

TEXTS = ["tram in sea", "a film about fox\nin river"]


@pytest.mark.filterwarnings("default")  # of libraries that are not among our pins
def test_a_model_is_exported_to_openvino(tmp_path: Path) -> None:
    pytest.importorskip("optimum.intel", reason="pip install sentence-transformers[openvino]")
    from sentence_transformers import SentenceTransformer

    model = open_base(save_encoder(tmp_path / "encoder"), TrainSettings())
    model.save_pretrained(str(tmp_path / "model"))
    told = {"backend": "openvino", "model_kwargs": {"device": "CPU"}}
    SentenceTransformer(str(tmp_path / "model"), **told).save_pretrained(str(tmp_path / "exported"))
    exported = SentenceTransformer(str(tmp_path / "exported"), **told)
    np.testing.assert_allclose(exported.encode(TEXTS), model.encode(TEXTS), rtol=0.05, atol=0.01)
