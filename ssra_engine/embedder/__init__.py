"""Training of the embedder, on sentence-transformers."""

from ssra_engine.embedder.losses import CachedGradedMatryoshkaLoss, GradedMatryoshkaLoss

__all__ = ["CachedGradedMatryoshkaLoss", "GradedMatryoshkaLoss"]
