"""The CUDA extension builds with warnings as errors, loads anywhere, and says what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssra_engine.kernels import cuda, cuda_loss
from ssra_engine.kernels.cuda_mining import CudaMiningIndex

ROOT = Path(__file__).parents[2]


def test_it_builds_and_holds_what_its_stub_says(built: Any, emulated_module: Any) -> None:
    assert built.device_type == "cuda"
    names = {name for name in dir(built) if not name.startswith("_")}
    assert names <= set(dir(emulated_module))
    stub = (ROOT / "ssra_engine" / "_cuda.pyi").read_text()
    assert all(f" {name}" in stub or f"{name}:" in stub for name in names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_launch_is_an_error(built: Any) -> None:
    launch = built.Launch(threads=256, device=0, stream=0)
    anchors = built.Anchors(
        count=1, positives=0, ceilings=0, largest=0, others=0, shares=0, pulls=0
    )
    with pytest.raises(RuntimeError, match=r"choosing the GPU: .* \(cudaError"):
        built.finish_sums(
            launch, anchors, levels=1, first=0, end=1, grades=0, temperature=0, losses=0
        )


def test_a_block_has_32_to_256_threads(emulated_module: Any) -> None:
    anchors = emulated_module.Anchors(
        count=1, positives=0, ceilings=0, largest=0, others=0, shares=0, pulls=0
    )
    for threads in (0, 16, 96, 512):
        launch = emulated_module.Launch(threads=threads, device=0, stream=0)
        with pytest.raises(ValueError, match=f"threads is {threads}, it must be a power of two"):
            emulated_module.finish_sums(
                launch, anchors, levels=1, first=0, end=0, grades=0, temperature=0, losses=0
            )


def test_what_was_not_built_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_found", lambda: None)
    assert not cuda.is_built()
    rows = torch.ones(2, 4)
    with pytest.raises(RuntimeError, match="SSRA_CUDA=ON"):
        CudaMiningIndex(4, "ip", rows.device)
    with pytest.raises(RuntimeError, match="SSRA_CUDA=ON"):
        cuda_loss.infonce(rows, rows, rows[:, 0], rows[0, 0], [4], False, 0.1, gradients=False)


def test_an_extension_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("undefined symbol")

    cuda._found.cache_clear()
    monkeypatch.setattr(cuda, "import_module", broken)
    with pytest.raises(ImportError, match="undefined symbol"):
        cuda.is_built()
    cuda._found.cache_clear()


def test_the_emulation_notices_what_goes_wrong(emulated: Any) -> None:
    values = [float(x) for x in range(64)]
    room = 4 * len(values)
    for order in (0, 1, 2, 3):
        emulated.set_order(order)
        assert emulated.sum_all(values, True, room) == sum(values)
    emulated.set_order(0)
    assert emulated.sum_all(values, False, room) != sum(values)
    with pytest.raises(RuntimeError, match="wrote beside its shared memory"):
        emulated.sum_all(values, True, room - 4)
    with pytest.raises(RuntimeError, match=r"thread 0 is at .*, thread 3 at its end"):
        emulated.part_at_a_barrier()
