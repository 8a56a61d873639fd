"""The graded loss of the embedder as sentence-transformers losses (arXiv 2509.16717)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from sentence_transformers.base.losses import CachedLossMixin
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ssra_engine.embedder.gather import gather_rows
from ssra_engine.embedder.queue import DocumentQueue
from ssra_engine.kernels.cosent import cosent_loss
from ssra_engine.kernels.loss import graded_infonce

__all__ = ["CachedGradedMatryoshkaLoss", "GradedMatryoshkaLoss"]


class GradedMatryoshkaLoss(nn.Module):
    """Contrastive loss with grades as weights, over nested dims (METHOD: "Embedder training").

    Columns of the data set are query, document and any number of hard negatives, and a label: the
    grade, a weight of its row's term, so that a pair of grade 0 is no positive while its document
    is a candidate for the other queries. Without labels every weight is 1. See
    `kernels.loss.graded_infonce` for the formula.

    In a distributed training, the batch is the joint one of all processes (`gather_rows`); its
    queries and documents are candidates for each other.

    Args:
        model: a SentenceTransformer.
        dims: rising Matryoshka dims; the whole vector by default.
        temperature: of the cosines, at the start.
        learn_temperature: learn its inverse, as a parameter of the loss, which the trainer's
            optimiser takes up.
        self_contrast: also hold queries against queries and documents against documents.
        false_negative_margin: leave out a candidate whose cosine exceeds the positive's by more;
            None leaves nothing out.
        cosent_weight: of a CoSENT term over the pairs of query and document and their grades, the
            mean over dims; 0 for none.
        cosent_temperature: of that term.
        gather_across_devices: False keeps to the batch of each process.
        backend: of `graded_infonce`.
        queue: of documents that hard negatives are mined from while gradients are computed;
            `checkpoints.KeepLoss` and `restore_loss` take it along.

    Raises:
        ValueError: a temperature that is not above 0, a negative weight, a queue without
            gathering; in `forward`, fewer than two columns, or dims beyond the model's.
    """

    def __init__(
        self,
        model: Any,
        *,
        dims: Sequence[int] | None = None,
        temperature: float = 0.03,
        learn_temperature: bool = True,
        self_contrast: bool = True,
        false_negative_margin: float | None = 0.1,
        cosent_weight: float = 0.0,
        cosent_temperature: float = 0.1,
        gather_across_devices: bool = True,
        backend: Literal["auto", "kernel", "torch"] = "auto",
        queue: DocumentQueue | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0 or not cosent_temperature > 0:
            raise ValueError(
                f"temperatures must be above 0, got {temperature} and {cosent_temperature}"
            )
        if cosent_weight < 0:
            raise ValueError(f"cosent_weight must be 0 or above, got {cosent_weight}")
        if queue is not None and not gather_across_devices:
            raise ValueError("a queue is of all processes; leave gather_across_devices True")
        self.model = model
        self.dims = None if dims is None else tuple(dims)
        self.scale = nn.Parameter(torch.tensor(1 / temperature), requires_grad=learn_temperature)
        self.self_contrast = self_contrast
        self.false_negative_margin = false_negative_margin
        self.cosent_weight = cosent_weight
        self.cosent_temperature = cosent_temperature
        self.gather_across_devices = gather_across_devices
        self.backend: Literal["auto", "kernel", "torch"] = backend
        self.queue = queue

    @property
    def temperature(self) -> float:
        """What it is now."""
        return 1 / float(self.scale.detach())

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch of tokenised columns, as the trainer calls it."""
        sentence_features = list(sentence_features)
        self._observe(sentence_features, labels)
        columns = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return self.loss_of(columns, labels, self.scale)

    def loss_of(self, columns: Sequence[Tensor], labels: Tensor | None, scale: Tensor) -> Tensor:
        """The loss of embeddings.

        Args:
            columns: float[B, D] each: queries, documents, and hard negatives.
            labels: [B], or [B, 1]; None for ones.
            scale: one element, the inverse of the temperature.

        Returns:
            A scalar.
        """
        if len(columns) < 2:
            raise ValueError(
                f"the data set must have the columns query and document, got {len(columns)}"
            )
        query, document, *negatives = columns
        grades = query.new_ones(len(query)) if labels is None else labels.to(query).reshape(-1)
        mined = torch.cat(negatives) if negatives else None
        queued = self._queued(query, document)
        if self.gather_across_devices:
            query, document, grades = map(gather_rows, (query, document, grades))
            mined = None if mined is None else gather_rows(mined)
        if queued is not None:
            mined = queued if mined is None else torch.cat([mined, queued.to(mined)])
        loss = graded_infonce(
            query,
            document,
            grades,
            negatives=mined,
            dims=self.dims,
            temperature=1 / scale,
            self_contrast=self.self_contrast,
            false_negative_margin=self.false_negative_margin,
            backend=self.backend,
        )
        if self.cosent_weight:
            loss = loss + self.cosent_weight * self._cosent(query, document, grades)
        return loss

    def _observe(self, features: Sequence[dict[str, Tensor]], labels: Tensor | None) -> None:
        if self.queue is not None and torch.is_grad_enabled() and len(features) > 1:
            self.queue.observe(features[0], features[1], labels)

    def _queued(self, query: Tensor, document: Tensor) -> Tensor | None:
        if self.queue is None or not torch.is_grad_enabled():
            return None
        return self.queue.negatives(query, document)

    def _cosent(self, query: Tensor, document: Tensor, grades: Tensor) -> Tensor:
        dims = self.dims or (query.shape[1],)
        terms = [
            cosent_loss(
                cosine_similarity(query[:, :dim], document[:, :dim], dim=1),
                grades,
                self.cosent_temperature,
            )
            for dim in dims
        ]
        return torch.stack(terms).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, as the model card shows them."""
        return {
            "dims": self.dims,
            "temperature": self.temperature,
            "learn_temperature": self.scale.requires_grad,
            "self_contrast": self.self_contrast,
            "false_negative_margin": self.false_negative_margin,
            "cosent_weight": self.cosent_weight,
            "cosent_temperature": self.cosent_temperature,
            "gather_across_devices": self.gather_across_devices,
            "queue": None if self.queue is None else self.queue.get_config_dict(),
        }


class CachedGradedMatryoshkaLoss(CachedLossMixin, GradedMatryoshkaLoss):  # type: ignore[misc]  # untyped
    """`GradedMatryoshkaLoss` for batches far beyond memory (GradCache, arXiv 2101.06983).

    Embeds twice, so that only the activations of one mini-batch are alive at a time; the loss and
    its gradients are the same. Memory grows with the batch by its tokens and embeddings only.

    Args:
        model: a SentenceTransformer.
        mini_batch_size: texts embedded at a time.
        settings: of `GradedMatryoshkaLoss`.
    """

    def __init__(self, model: Any, *, mini_batch_size: int = 32, **settings: Any) -> None:
        super().__init__(model, **settings)
        if mini_batch_size < 1:
            raise ValueError(f"mini_batch_size must be 1 or above, got {mini_batch_size}")
        self.mini_batch_size = mini_batch_size
        self._for_scale: Any = None

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch of tokenised columns; its backward pass embeds them again."""
        sentence_features = list(sentence_features)
        self._observe(sentence_features, labels)
        loss: Any = CachedLossMixin.forward_cached(self, sentence_features, labels)
        gradient, self._for_scale = self._for_scale, None
        if gradient is not None:
            loss.register_hook(lambda upstream: self._add_to_scale(upstream * gradient))
        value: Tensor = loss
        return value

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of embedded mini-batches, taken back to them at once if so asked."""
        columns = [torch.cat(parts) for parts in reps]
        if not with_backward:
            return self.loss_of(columns, labels, self.scale)
        # The parameter itself waits for the backward pass proper, which may scale the loss.
        scale = self.scale.detach().requires_grad_(self.scale.requires_grad)
        loss = self.loss_of(columns, labels, scale)
        torch.autograd.backward(loss)
        self._for_scale = scale.grad
        return loss.detach()

    def _add_to_scale(self, gradient: Tensor) -> None:
        gradient = gradient.to(self.scale).reshape(self.scale.shape)
        self.scale.grad = gradient if self.scale.grad is None else self.scale.grad + gradient

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, as the model card shows them."""
        return {**super().get_config_dict(), "mini_batch_size": self.mini_batch_size}
