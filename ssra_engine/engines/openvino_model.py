"""Token trees computed by OpenVINO: an exported graph, compiled for this CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssra_engine.engines.openvino_graph import GRAPH, PLAIN, GraphFacts
from ssra_engine.engines.token_tree import TreeLayout, TreeTokens, additive
from ssra_engine.engines.tree_model import TreeModel
from ssra_engine.errors import EngineError

__all__ = ["OpenvinoTreeModel"]

_PRECISION = {"float32": "f32", "bfloat16": "bf16"}
#: Largest difference from torch in float32, in standard deviations of the logits.
_TOLERANCE = {"float32": 1e-2, "bfloat16": 0.5}


class _Variables:
    """The keys and values of the trees that are being decoded, in the graph's variables."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def keep(self, rows: torch.Tensor, columns: torch.Tensor, capacity: int) -> None:
        """See `KeptColumns.keep`; OpenVINO makes room by itself."""
        import openvino

        picked_rows, picked = rows[:, None].numpy(), columns.numpy()
        for variable in self._request.query_state():
            kept = variable.state.data[picked_rows, :, picked].transpose(0, 2, 1, 3)
            variable.state = openvino.Tensor(np.ascontiguousarray(kept))


class OpenvinoTreeModel(TreeModel[_Variables]):
    """Logits of token trees, computed by OpenVINO. One batch at a time.

    Args:
        folder: of `export_graph`.
        dtype: of arithmetic and of keys and values: float32 or bfloat16.
        threads: of inference; None for as many as OpenVINO sees fit.

    Raises:
        EngineError: OpenVINO cannot open the graph, or what it computes is not what torch does.
    """

    def __init__(self, folder: Path, facts: GraphFacts, *, dtype: str, threads: int | None) -> None:
        super().__init__(
            facts.name,
            dtype=torch.float32,
            vocabulary=facts.vocabulary,
            context=facts.context,
            windows=facts.windows,
        )
        self._kinds = facts.masks()
        self._request = _compile(folder / GRAPH, _PRECISION[dtype], threads)
        self.verify(torch.from_numpy(np.load(folder / PLAIN)), _TOLERANCE[dtype])

    def label_logits(self, layout: TreeLayout, label_ids: list[int]) -> np.ndarray:
        """See `TreeModel.label_logits`."""
        logits, _ = self.prefill(layout, 0)
        labels: np.ndarray = logits.view(*layout.branch.shape, -1)[..., label_ids].numpy()
        return labels

    def prefill(self, layout: TreeLayout, steps: int) -> tuple[torch.Tensor, _Variables]:
        """See `TreeModel.prefill`; the trees before are forgotten."""
        self._request.reset_state()
        tokens, positions = torch.from_numpy(layout.tokens), torch.from_numpy(layout.positions)
        columns = torch.from_numpy(layout.branch_column)
        wanted = columns + torch.arange(len(columns))[:, None] * tokens.shape[1]
        mask = additive(torch.from_numpy(layout.visible()), self.dtype)
        inputs = TreeTokens(tokens, positions, mask, positions)
        cache = _Variables(self._request)
        return self.forward(inputs, cache, wanted.flatten()), cache

    def forward(
        self,
        inputs: TreeTokens,
        cache: _Variables | None,
        wanted: torch.Tensor,
    ) -> torch.Tensor:
        """See `TreeModel.forward`."""
        mask, masks = inputs.mask, dict.fromkeys(self._kinds, inputs.mask)
        if self.window_matters(inputs.positions):
            windowed = self.windowed(inputs)
            mask, masks = windowed.pop("", mask), masks | windowed
        tensors = {
            "tokens": inputs.tokens,
            "positions": inputs.positions,
            "wanted": wanted,
            "rows": torch.arange(len(inputs.tokens), dtype=torch.int32),
            "mask": mask,
            **masks,
        }
        arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        outputs = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        return torch.from_numpy(outputs[0])


def _compile(path: Path, precision: str, threads: int | None) -> Any:
    """An inference request."""
    import openvino

    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        # Several processes would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        return openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise EngineError(f"{path}: OpenVINO cannot open it: {reason}") from error
