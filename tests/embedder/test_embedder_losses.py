"""The losses against METHOD's formulas, written out in float64."""

from __future__ import annotations

import itertools
import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from ssra_engine.embedder import CachedGradedMatryoshkaLoss, GradedMatryoshkaLoss

WIDTH = 24


class Encoder(nn.Module):
    """What a loss asks of a SentenceTransformer; `dtype` of its arithmetic as wanted."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(16, WIDTH, generator=generator).to(dtype))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = features["input_ids"].to(self.weight)
        return {"sentence_embedding": torch.tanh(rows @ self.weight) + 0.1}


def batch(rows: int = 13, negatives: int = 2, seed: int = 0) -> tuple[list[Any], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, 16, generator=generator)
    columns = [query, query + 0.7 * torch.randn(rows, 16, generator=generator)]
    columns += [torch.randn(rows, 16, generator=generator) for _ in range(negatives)]
    grades = torch.randint(0, 4, (rows,), generator=generator).float()
    return [{"input_ids": column} for column in columns], grades


def cosine(left: Tensor, right: Tensor) -> Tensor:
    return (left @ right) / (left.norm() * right.norm())


def formula(columns: list[Tensor], grades: Tensor, scale: Tensor, **settings: Any) -> Tensor:
    """METHOD's loss, a pair at a time."""
    query, positive = columns[:2]
    candidates = [*positive, *itertools.chain(*columns[2:])]
    rows, total = len(query), torch.zeros((), dtype=torch.float64)
    margin = settings["false_negative_margin"]
    dims = settings["dims"] or (query.shape[1],)
    for dim in dims:
        own = [cosine(query[i][:dim], positive[i][:dim]) for i in range(rows)]
        for i in range(rows):
            others = [cosine(query[i][:dim], c[:dim]) for j, c in enumerate(candidates) if j != i]
            if settings["self_contrast"]:
                for side in (query, positive):
                    others += [cosine(side[i][:dim], side[j][:dim]) for j in range(rows) if j != i]
            kept = [c for c in others if margin is None or c <= own[i] + margin]
            logits = torch.stack([own[i], *kept]) * scale
            total = total + grades[i] * (logits.logsumexp(0) - logits[0]) / rows / len(dims)
        if settings["cosent_weight"]:
            heat = settings["cosent_temperature"]
            terms = [torch.zeros((), dtype=torch.float64)]
            for i, j in itertools.product(range(rows), repeat=2):
                if grades[i] > grades[j]:
                    terms.append((own[j] - own[i]) / heat)
            term = torch.stack(terms).logsumexp(0)
            total = total + settings["cosent_weight"] * term / len(dims)
    return total


GRID = [
    dict(zip(("dims", "self_contrast", "false_negative_margin", "cosent_weight"), row, strict=True))
    for row in itertools.product([None, (5, 16, WIDTH)], [False, True], [None, 0.1], [0.0, 0.5])
]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("settings", GRID, ids=str)
def test_values_and_gradients_are_those_of_the_formula(
    settings: dict[str, Any], negatives: int, *, cached: bool
) -> None:
    settings = {**settings, "cosent_temperature": 0.1}
    features, grades = batch(negatives=negatives)
    exact = Encoder(torch.float64)
    scale = torch.tensor(1 / 0.05, dtype=torch.float64, requires_grad=True)
    columns = [exact(column)["sentence_embedding"] for column in features]
    expected = formula(columns, grades.double(), scale, **settings)
    expected.backward()

    model = Encoder()
    more: dict[str, Any] = {"mini_batch_size": 4} if cached else {}
    kind = CachedGradedMatryoshkaLoss if cached else GradedMatryoshkaLoss
    loss = kind(model, temperature=0.05, **settings, **more)
    value = loss(features, grades)
    value.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-4)
    assert model.weight.grad is not None
    assert exact.weight.grad is not None
    torch.testing.assert_close(model.weight.grad.double(), exact.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.scale.grad.double(), scale.grad, rtol=1e-4, atol=1e-4)


def test_cached_gradients_follow_the_scale_of_the_backward_pass() -> None:
    gradients = []
    for kind in (GradedMatryoshkaLoss, CachedGradedMatryoshkaLoss):
        model = Encoder()
        loss = kind(model)
        features, grades = batch()
        for _ in range(2):  # as in gradient accumulation
            (loss(features, grades) * 0.25).backward()
        assert model.weight.grad is not None
        gradients.append((model.weight.grad, loss.scale.grad))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_no_labels_are_weights_of_one() -> None:
    features, grades = batch()
    loss = GradedMatryoshkaLoss(Encoder())
    torch.testing.assert_close(loss(features), loss(features, torch.ones_like(grades)))


def test_a_fixed_temperature_gets_no_gradient() -> None:
    features, grades = batch()
    for kind in (GradedMatryoshkaLoss, CachedGradedMatryoshkaLoss):
        loss = kind(Encoder(), learn_temperature=False)
        loss(features, grades).backward()
        assert loss.scale.grad is None


def test_the_cached_loss_can_be_had_without_gradients() -> None:
    features, grades = batch()
    with torch.no_grad():
        value = CachedGradedMatryoshkaLoss(Encoder(), mini_batch_size=3)(features, grades)
        torch.testing.assert_close(value, GradedMatryoshkaLoss(Encoder())(features, grades))


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"cosent_weight": -1}, {"cosent_temperature": -math.inf}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        GradedMatryoshkaLoss(Encoder(), **settings)


def test_one_column_is_refused() -> None:
    features, _ = batch()
    with pytest.raises(ValueError, match="query and document"):
        GradedMatryoshkaLoss(Encoder())(features[:1])


def _one_of_two(rank: int, port: int, folder: str, cached: bool) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = Encoder()
    loss = _loss(DistributedDataParallel(model), cached)
    features, grades = batch()
    # Batches of unequal length, as at the end of an epoch.
    rows = slice(0, 8) if rank == 0 else slice(8, 13)
    value = loss([{"input_ids": column["input_ids"][rows]} for column in features], grades[rows])
    value.backward()
    torch.save((value.detach(), model.weight.grad, loss.scale.grad), Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    # Torch's own end of a process group can wait for ever, for a thread that waits for Python.
    os._exit(0)


def _loss(model: nn.Module, cached: bool) -> GradedMatryoshkaLoss:
    settings: dict[str, Any] = {"dims": (8, WIDTH), "cosent_weight": 0.5}
    if cached:
        return CachedGradedMatryoshkaLoss(model, mini_batch_size=3, **settings)
    return GradedMatryoshkaLoss(model, **settings)


@pytest.mark.parametrize("cached", [False, True])
def test_two_processes_equal_one_with_the_joint_batch(tmp_path: Path, *, cached: bool) -> None:
    model = Encoder()
    loss = _loss(model, cached)
    value = loss(*batch())
    value.backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one_of_two, (port, str(tmp_path), cached), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(
            found, (value.detach(), model.weight.grad, loss.scale.grad), rtol=1e-5, atol=1e-5
        )
