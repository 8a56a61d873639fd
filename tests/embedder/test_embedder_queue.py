"""The document queue against one kept in plain Python; in the loss; across processes; resumed."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from small_models import byte_tokenizer
from torch import Tensor, multiprocessing, nn
from torch.nn.functional import normalize
from worlds import THINGS, save_encoder

from ssra_engine.embedder import CachedGradedMatryoshkaLoss, GradedMatryoshkaLoss
from ssra_engine.embedder.base import open_base
from ssra_engine.embedder.fit import fit
from ssra_engine.embedder.momentum import MomentumCopy
from ssra_engine.embedder.queue import DocumentQueue, token_keys
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.kernels.loss import graded_infonce

WIDTH, VOCABULARY, LENGTH = 12, 50, 6
Batch = tuple[list[dict[str, Tensor]], Tensor]


class Encoder(nn.Module):
    """What a loss and a queue ask of a SentenceTransformer: the mean of its tokens' vectors."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=generator))
        self.offset = nn.Parameter(torch.full((WIDTH,), 0.1), requires_grad=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = features["attention_mask"][:, :, None].to(self.weight)
        rows = self.dropout(self.weight)[features["input_ids"]] + self.offset
        return {"sentence_embedding": (rows * mask).sum(1)}


class WritingEncoder(Encoder):
    """Writes into its features, as pooling without the prompt does."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        embedded = super().forward(features)
        features["attention_mask"].zero_()
        return embedded


def batches(count: int, rows: int = 9, documents: int = 30) -> list[Batch]:
    """Documents come again, and so do queries, with other documents."""
    generator = torch.Generator().manual_seed(0)
    texts = [
        {
            "input_ids": torch.randint(VOCABULARY, (documents, LENGTH), generator=generator),
            "attention_mask": torch.randint(1, LENGTH + 1, (documents, 1), generator=generator)
            > torch.arange(LENGTH),
        }
        for _ in range(2)
    ]
    made = []
    for _ in range(count):
        query = torch.randint(documents, (rows,), generator=generator)
        document = torch.randperm(documents, generator=generator)[:rows]
        grades = torch.randint(0, 4, (rows,), generator=generator).float()
        columns = [
            {name: value[rows_of] for name, value in side.items()}
            for side, rows_of in zip(texts, (query, document), strict=True)
        ]
        made.append((columns, grades))
    return made


def clones(columns: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: value.clone() for name, value in column.items()} for column in columns]


class PlainQueue:
    """The queue, a document at a time."""

    def __init__(self, model: Encoder, size: int, momentum: float) -> None:
        self.weight, self.size, self.momentum = model.weight.detach().clone(), size, momentum
        self.places: list[tuple[Any, Tensor]] = []
        self.oldest = 0
        self.known: set[tuple[Any, Any]] = set()

    def step(self, model: Encoder, batch: Batch) -> Tensor | None:
        (query, document), grades = batch
        self.weight = self.momentum * self.weight + (1 - self.momentum) * model.weight.detach()
        names = [_names(side) for side in (query, document)]
        for q, d, grade in zip(*names, grades.tolist(), strict=True):
            if grade > 0:
                self.known.add((q, d))
        banned = {*names[1], *(d for q, d in self.known if q in names[0])}
        units = [normalize(_mean(model.weight.detach(), side), dim=1) for side in (query, document)]
        chosen = set()
        for q, positive in zip(*units, strict=True):
            limit = float(q @ positive) - abs(float(q @ positive)) * 0.05
            scored = sorted(
                ((float(q @ vector), -place) for place, (name, vector) in enumerate(self.places)
                 if name not in banned),
                reverse=True,
            )  # fmt: skip
            chosen |= {-place for score, place in [s for s in scored if s[0] <= limit][:3]}
        found = [self.places[place][1] for place in sorted(chosen)]
        for name, vector in zip(
            names[1], normalize(_mean(self.weight, document), dim=1), strict=True
        ):
            self._put(name, vector)
        return torch.stack(found) if found else None

    def _put(self, name: Any, vector: Tensor) -> None:
        here = [place for place, (other, _) in enumerate(self.places) if other == name]
        if here:
            self.places[here[0]] = (name, vector)
        elif len(self.places) < self.size:
            self.places.append((name, vector))
        else:
            self.places[self.oldest] = (name, vector)
            self.oldest = (self.oldest + 1) % self.size


def _names(side: dict[str, Tensor]) -> list[tuple[int, ...]]:
    both = zip(side["input_ids"], side["attention_mask"], strict=True)
    return [tuple(row[mask].tolist()) for row, mask in both]


def _mean(weight: Tensor, side: dict[str, Tensor]) -> Tensor:
    return ((weight[side["input_ids"]] + 0.1) * side["attention_mask"][:, :, None]).sum(1)


@pytest.mark.parametrize("size", [5, 14, 100])
def test_the_queue_is_the_plain_one(size: int) -> None:
    model = Encoder().eval()
    queue = DocumentQueue(model, size=size, momentum=0.9)
    plain = PlainQueue(model, size, 0.9)
    found = 0
    for number, batch in enumerate(batches(12)):
        with torch.no_grad():
            model.weight += 0.1 * torch.randn(
                model.weight.shape, generator=torch.Generator().manual_seed(number)
            )
        expected = plain.step(model, batch)
        queue.observe(*batch[0], batch[1])
        columns = [model(side)["sentence_embedding"] for side in clones(batch[0])]
        ours = queue.negatives(*columns)
        assert (ours is None) == (expected is None)
        if ours is not None:
            assert expected is not None
            assert not ours.requires_grad
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
            found += len(ours)
        assert len(queue) == len(plain.places) <= size
    assert found > 10


def losses(model: Encoder, *, cached: bool, **queue: Any) -> GradedMatryoshkaLoss:
    settings: dict[str, Any] = {"dims": (4, WIDTH), "queue": DocumentQueue(model, **queue)}
    if cached:
        return CachedGradedMatryoshkaLoss(model, mini_batch_size=4, **settings)
    return GradedMatryoshkaLoss(model, **settings)


@pytest.mark.parametrize("cached", [False, True])
def test_the_loss_holds_the_negatives_against_every_query(*, cached: bool) -> None:
    model, twin = Encoder().eval(), Encoder().eval()
    loss, queue = losses(model, cached=cached), DocumentQueue(twin)
    for columns, grades in batches(4):
        queue.observe(*clones(columns), grades)
        embedded = [twin(side)["sentence_embedding"] for side in clones(columns)]
        negatives = queue.negatives(*embedded)
        expected = graded_infonce(
            *embedded,
            grades,
            negatives=negatives,
            dims=(4, WIDTH),
            temperature=1 / loss.scale.detach(),
            self_contrast=True,
            false_negative_margin=0.1,
        )
        value = loss(clones(columns), grades)
        torch.testing.assert_close(value, expected)
        for network, one in ((model, value), (twin, expected)):
            network.weight.grad = None
            one.backward()
        torch.testing.assert_close(model.weight.grad, twin.weight.grad)


def test_the_queue_rests_while_no_gradients_are_computed() -> None:
    model = Encoder().eval()
    loss = losses(model, cached=False)
    columns, grades = batches(1)[0]
    with torch.no_grad():
        value = loss(clones(columns), grades)
    torch.testing.assert_close(
        value, GradedMatryoshkaLoss(model, dims=(4, WIDTH))(clones(columns), grades).detach()
    )
    assert loss.queue is not None
    assert len(loss.queue) == 0


def test_the_copy_has_no_dropout_and_shares_what_is_frozen() -> None:
    model = WritingEncoder().train()
    copied = MomentumCopy(model, 0.5)
    columns, _ = batches(1)[0]
    before = torch.get_rng_state()
    first = copied.embed(columns[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert columns[0]["attention_mask"].any()
    with torch.no_grad():
        model.offset += 1
        model.weight += 2
    lengths = columns[0]["attention_mask"].sum(1, keepdim=True)
    torch.testing.assert_close(copied.embed(columns[0]), first + lengths)
    copied.follow()
    torch.testing.assert_close(copied.embed(columns[0]), first + 2 * lengths)
    assert list(copied.state_dict()) == ["weight"]


def curve(model: Encoder, loss: GradedMatryoshkaLoss, steps: Sequence[Batch]) -> list[float]:
    values = []
    for columns, grades in steps:
        model.weight.grad = None
        value = loss(clones(columns), grades)
        value.backward()
        assert model.weight.grad is not None
        with torch.no_grad():
            model.weight -= 0.3 * model.weight.grad
        values.append(float(value.detach()))
    return values


def test_a_saved_queue_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    steps = batches(12)
    model = Encoder().eval()
    loss = losses(model, cached=False, size=20, momentum=0.9)
    curve(model, loss, steps[:6])
    assert loss.queue is not None
    torch.save((loss.queue.state_dict(), model.state_dict()), tmp_path / "kept.pt")
    expected = curve(model, loss, steps[6:])

    again = Encoder(seed=2).eval()
    resumed = losses(again, cached=False, size=20, momentum=0.9)
    assert resumed.queue is not None
    queue, weights = torch.load(tmp_path / "kept.pt", weights_only=True)
    resumed.queue.load_state_dict(queue)
    again.load_state_dict(weights)
    assert curve(again, resumed, steps[6:]) == expected
    forgetful = losses(again, cached=False, size=20, momentum=0.9)
    again.load_state_dict(weights)
    assert curve(again, forgetful, steps[6:]) != expected


def test_a_state_of_another_queue_is_refused() -> None:
    state = DocumentQueue(Encoder(), size=4).state_dict()
    with pytest.raises(ValueError, match="size 4, not 5"):
        DocumentQueue(Encoder(), size=5).load_state_dict(state)
    with pytest.raises(ValueError, match="other weights"):
        DocumentQueue(nn.Linear(2, 2), size=4).load_state_dict(state)


@pytest.mark.parametrize("told", [{"size": 0}, {"per_query": 0}, {"momentum": 1.1}])
def test_settings_that_make_no_sense_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DocumentQueue(Encoder(), **told)
    with pytest.raises(ValueError, match="gather_across_devices"):
        GradedMatryoshkaLoss(Encoder(), queue=DocumentQueue(Encoder()), gather_across_devices=False)


def _static_model() -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = byte_tokenizer().backend_tokenizer
    weights = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), WIDTH))
    module = StaticEmbedding(tokenizer, embedding_weights=weights.astype(np.float32))
    return SentenceTransformer(modules=[module], device="cpu")


def test_a_pair_that_is_known_beforehand_is_no_negative() -> None:
    model = _static_model()
    for known in (False, True):
        queue = DocumentQueue(model, relative_margin=-10.0)
        if known:
            queue.know(["otter"], ["a film about otters"], document_prompt="about: ")
        for query, document in [("tram", "a film about otters"), ("otter", "otters in Kyoto")]:
            features = [
                model.preprocess([text], prompt=prompt)
                for text, prompt in ((query, None), (document, "about: "))
            ]
            queue.observe(*features, None)
            columns = [model(side)["sentence_embedding"] for side in features]
            negatives = queue.negatives(*columns)
        assert (negatives is None) == known


def test_padding_and_layout_are_no_part_of_a_key() -> None:
    left = {"input_ids": torch.tensor([[0, 5, 6], [7, 8, 9]])}
    left["attention_mask"] = torch.tensor([[0, 1, 1], [1, 1, 1]])
    right = {"input_ids": torch.tensor([[5, 6, 0, 0], [7, 8, 9, 0]])}
    right["attention_mask"] = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    bags = {"input_ids": torch.tensor([5, 6, 7, 8, 9]), "offsets": torch.tensor([0, 2])}
    flat = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "cu_seq_lens_q": torch.tensor([0, 2, 5])}
    keys = [token_keys(features).tolist() for features in (left, right, bags, flat)]
    assert keys[0][0] != keys[0][1]
    assert all(one == keys[0] for one in keys)
    with pytest.raises(ValueError, match="input_ids"):
        token_keys({"pixel_values": torch.zeros(1)})


def _one_of_two(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    rows = slice(0, 5) if rank == 0 else slice(5, 9)
    model = Encoder().eval()
    loss = losses(model, cached=False, size=20)
    for columns, grades in batches(6):
        mine = [{name: value[rows] for name, value in side.items()} for side in columns]
        value = loss(clones(mine), grades[rows]).detach()
    assert loss.queue is not None
    torch.save((value, loss.queue.state_dict()), Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    # Torch's own end of a process group can wait for ever, for a thread that waits for Python.
    os._exit(0)


def test_two_processes_have_the_queue_of_one_with_the_joint_batch(tmp_path: Path) -> None:
    model = Encoder().eval()
    loss = losses(model, cached=False, size=20)
    for columns, grades in batches(6):
        value = loss(clones(columns), grades).detach()
    assert loss.queue is not None
    expected = loss.queue.state_dict()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one_of_two, (port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        found, state = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, value)
        assert torch.equal(state["keys"], expected["keys"])
        assert torch.equal(state["known"], expected["known"])
        torch.testing.assert_close(state["vectors"], expected["vectors"])


@pytest.mark.slow
def test_a_training_goes_on_from_a_checkpoint_with_its_queue(tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "base")
    settings = TrainSettings(
        max_tokens=32, queue=40, batch_rows=8, rate=1e-3, epochs=2, log_steps=1, checkpoint_steps=5
    )
    rows = [
        {"query": f"{a} in {b}", "document": f"a film about {c}\nin {b}", "label": float(a == c)}
        for a in THINGS
        for b, other in zip(THINGS, THINGS[1:] + THINGS[:1], strict=True)
        for c in (a, other)
    ]
    whole = fit(open_base(base, settings), Dataset.from_list(rows), settings, tmp_path / "kept")
    without = replace(settings, queue=0)
    plain = fit(open_base(base, without), Dataset.from_list(rows), without, tmp_path / "plain")
    assert [e["loss"] for e in whole.curve] != [e["loss"] for e in plain.curve]

    last, *_ = sorted((tmp_path / "kept").iterdir(), key=lambda path: -int(path.name[11:]))
    shutil.rmtree(last)
    again = fit(open_base(base, settings), Dataset.from_list(rows), settings, tmp_path / "kept")
    assert again.steps == whole.steps
    assert again.curve == whole.curve
