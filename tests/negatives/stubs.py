"""Models that return given vectors and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers.util import SimilarityFunction

Matrix = npt.NDArray[np.float32]


class StubModel:
    """A SentenceTransformer with a table of vectors; counts and keeps what it was asked."""

    device = torch.device("cpu")

    def __init__(self, vectors: Mapping[str, Matrix], similarity: str = "cosine") -> None:
        self.vectors = vectors
        self.similarity_fn_name = similarity
        self.similarity = SimilarityFunction.to_similarity_fn(similarity)
        self.similarity_pairwise = SimilarityFunction.to_similarity_pairwise_fn(similarity)
        self.model_card_data = SimpleNamespace(base_model="stub")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.pools: list[object] = []

    def get_embedding_dimension(self) -> int:
        return len(next(iter(self.vectors.values())))

    def encode_query(self, texts: Sequence[str], **options: Any) -> Matrix:
        return self._encode("query", texts, options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> Matrix:
        return self._encode("document", texts, options)

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> object:
        self.pools.append(target_devices)
        return f"pool {len(self.pools)}"

    def stop_multi_process_pool(self, pool: object) -> None:
        self.pools.append(f"stopped {pool}")

    def _encode(self, side: str, texts: Sequence[str], options: dict[str, Any]) -> Matrix:
        self.calls.append((side, options))
        assert options["normalize_embeddings"]
        assert options["convert_to_numpy"]
        rows = np.stack([self.vectors[text] for text in texts])
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


class StubCrossEncoder:
    """Scores that are a fixed function of the pair."""

    def __init__(self, shape: int = 1) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.shape = shape
        self.pools: list[object] = []

    def predict(self, pairs: Sequence[tuple[str, str]], **options: Any) -> torch.Tensor:
        assert options["convert_to_tensor"]
        self.pairs += pairs
        self.pools.append(options["pool"])
        return torch.tensor([pair_score(*pair) for pair in pairs])

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> str:
        return "workers"

    def stop_multi_process_pool(self, pool: object) -> None:
        assert pool == "workers"


def pair_score(query: str, document: str) -> float:
    seed = [*query.encode(), 256, *document.encode()]
    return float(np.random.default_rng(seed).uniform(-1, 1))
