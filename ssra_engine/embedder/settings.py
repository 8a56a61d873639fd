"""Settings of an embedder's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ssra_engine.errors import ConfigError

__all__ = ["PoolingMode", "TrainSettings"]

PoolingMode = Literal["mean", "cls", "lasttoken"]

#: Settings that change how training is watched and stored, not what it yields.
_WATCHING = ("report_to", "log_steps", "checkpoint_steps")


@dataclass(frozen=True)
class TrainSettings:
    """How an embedder is trained; the defaults of the loss are those of arXiv 2509.16717.

    Attributes:
        pooling: of a folder without one; by default the last token for a causal LM, else the mean.
        query_prompt: before each query; None keeps the model's own.
        document_prompt: before each document; None keeps the model's own.
        max_tokens: longer texts are cut; None keeps the model's own limit.
        lora_rank: of a LoRA over all linear layers of the transformer; 0 trains all weights.
        lora_alpha: its scale; twice the rank where None.
        lora_dropout: inside it.
        dims: Matryoshka dims; none means the whole vector.
        self_contrast: see `GradedMatryoshkaLoss`.
        false_negative_margin: see there.
        temperature: at the start.
        learn_temperature: see there.
        cosent_weight: see there.
        mini_batch_rows: texts embedded at a time by the cached loss; None for the plain loss.
        binary_labels: a grade counts as 1 from `relevant` on and as 0 below.
        relevant: that grade; by default the middle of the scale, rounded up.
        negatives: hard negatives of each pair, where a table of them is given.
        judged_negatives: hard negatives of each pair among the documents that its query has at a
            lower grade.
        queue: documents of a `DocumentQueue` that more hard negatives are mined from; 0 for none.
        recipe: share of each label in a batch; None takes every pair once an epoch.
        epochs: passes over the pairs.
        rate: highest learning rate; it falls as a cosine.
        warmup: share of the steps with a rising rate, or from 1 on their number.
        weight_decay: of AdamW.
        batch_rows: pairs in a batch, on each device.
        bf16: compute in bfloat16; weights stay in float32.
        gradient_checkpointing: compute activations again in the backward pass.
        seed: of the LoRA's weights, the order of the pairs, and dropout.
        report_to: where the trainer reports to, such as tensorboard or wandb.
        log_steps: steps between two values of the loss curve.
        checkpoint_steps: steps between two checkpoints; a multiple of `log_steps`.
    """

    pooling: PoolingMode | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: int | None = None
    lora_rank: int = 0
    lora_alpha: float | None = None
    lora_dropout: float = 0.1
    dims: tuple[int, ...] = ()
    self_contrast: bool = True
    false_negative_margin: float | None = 0.1
    temperature: float = 0.03
    learn_temperature: bool = True
    cosent_weight: float = 0.0
    mini_batch_rows: int | None = None
    binary_labels: bool = False
    relevant: int | None = None
    negatives: int = 1
    judged_negatives: int = 0
    queue: int = 0
    recipe: Mapping[int, float] | None = None
    epochs: float = 1.0
    rate: float = 2e-5
    warmup: float = 0.05
    weight_decay: float = 1e-3
    batch_rows: int = 64
    bf16: bool = False
    gradient_checkpointing: bool = False
    seed: int = 0
    report_to: tuple[str, ...] = field(default=())
    log_steps: int = 10
    checkpoint_steps: int = 100

    def check(self) -> None:
        """See that every value makes sense.

        Raises:
            ConfigError: one does not.
        """
        above = ("epochs", "rate", "temperature", "batch_rows", "log_steps", "checkpoint_steps")
        for name in (*above, "mini_batch_rows", "max_tokens", "lora_alpha", "negatives"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}.")
        least_0 = ("queue", "lora_rank", "warmup", "weight_decay", "cosent_weight", "seed")
        for name in (*least_0, "judged_negatives"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or above, got {getattr(self, name)}.")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout must be within 0 and 1, got {self.lora_dropout}.")
        if any(dim < 1 for dim in self.dims):
            raise ConfigError(f"dims must be 1 or above, got {list(self.dims)}.")
        if self.checkpoint_steps % self.log_steps:
            raise ConfigError(
                f"checkpoint_steps must be a multiple of log_steps ({self.log_steps}), got "
                f"{self.checkpoint_steps}: the loss curve goes on at a checkpoint."
            )
        if self.relevant is not None and not self.binary_labels:
            raise ConfigError("relevant is for binary labels only. Add --binary-labels.")
        for label, share in (self.recipe or {}).items():
            if not share > 0:
                raise ConfigError(f"recipe: the share of {label} must be above 0, got {share}.")

    def shown(self) -> dict[str, Any]:
        """As plain JSON values."""
        tree = asdict(self)
        tree["dims"], tree["report_to"] = list(self.dims), list(self.report_to)
        if self.recipe is not None:
            tree["recipe"] = {str(label): share for label, share in self.recipe.items()}
        return tree

    def deciding(self) -> dict[str, Any]:
        """Those of `shown` that the trained weights depend on."""
        return {name: value for name, value in self.shown().items() if name not in _WATCHING}
