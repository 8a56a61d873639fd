"""A causal language model as an OpenVINO graph of token trees.

The torch model of `load_backbone` is traced, one step of it: tokens, their positions and masks in,
the logits after some of them out. That needs no other package's exporter, and no older
transformers. The keys and values then become variables of the graph: so OpenVINO appends to them
in place, where a cache that is passed in and out is copied at each step.

Graphs are kept in the cache folder under a key of what went into them, with their tokenizer, so the
second time nothing is done and torch's weights are not read. They hold float32 weights, twice the
size of a bfloat16 model; the arithmetic is chosen when they are opened.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from ssra_engine.content import content_key
from ssra_engine.durable import locked, put_folder, writing
from ssra_engine.engines.causal_lm import PickingHead, plain_logits
from ssra_engine.engines.checkpoint import cache_folder
from ssra_engine.engines.torch_engine import end_ids, model_size
from ssra_engine.engines.tree_model import attention_windows, usable_context
from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import load_backbone

__all__ = ["GRAPH", "INPUTS", "PLAIN", "GraphFacts", "export_graph"]

GRAPH = "graph.xml"
#: Logits after the probe prompts as torch computes them, float32[2, V].
PLAIN = "plain.npy"
#: Inputs of every graph; after them come masks of kinds of layers with a sliding window.
INPUTS = ("tokens", "positions", "wanted", "mask")
#: Part of every key; raise it when what is written changes.
_FORMAT = 1
_FACTS = "facts.json"
_ATTENTION = "ssra_openvino"


@dataclass(frozen=True)
class GraphFacts:
    """What an exported folder says about its model; see `TreeModel` and `TreeEngine`."""

    name: str
    size: str
    vocabulary: int
    context: int | None
    windows: dict[str, int]
    end_ids: list[int]

    @classmethod
    def read(cls, folder: Path) -> GraphFacts:
        """Those of an exported folder."""
        return cls(**json.loads((folder / _FACTS).read_text(encoding="utf-8")))

    def masks(self) -> list[str]:
        """Kinds of layers that get a mask of their own."""
        return [kind for kind in self.windows if kind]


def export_graph(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    trust_remote_code: bool = False,
    cache: Path | None = None,
) -> Path:
    """A folder with the graph of `model`, its tokenizer and its facts.

    Args:
        model: a model folder or a GGUF file; see `load_backbone`.
        adapter: folder of a LoRA adapter, to be merged.
        trust_remote_code: run model code from the folder.
        cache: where exported folders are kept; `cache_folder` unless given.

    Raises:
        EngineError: the model cannot be read, or OpenVINO cannot express it.
        StoreError: the cache cannot be written.
    """
    parts = [str(_FORMAT), *(version(name) for name in ("openvino", "transformers"))]
    parts += [content_key(model), "" if adapter is None else content_key(adapter)]
    key = xxhash.xxh3_128_hexdigest(" ".join(parts).encode())
    folder = (cache or cache_folder()) / "openvino" / key

    def fill(target: Path) -> None:
        network, tokenizer = load_backbone(
            model, adapter=adapter, trust_remote_code=trust_remote_code
        )
        config = network.config.get_text_config(decoder=True)
        facts = GraphFacts(
            name=str(config.model_type),
            size=model_size(network),
            vocabulary=config.vocab_size,
            context=usable_context(config),
            windows=attention_windows(config),
            end_ids=end_ids(network, tokenizer),
        )
        plain = plain_logits(network).numpy()
        graph = _convert(network, facts)
        with writing(target):
            (target / _FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")
            np.save(target / PLAIN, plain)
            tokenizer.save_pretrained(target)
            network.config.save_pretrained(target)  # by which transformers finds the tokenizer
        _save(graph, target / GRAPH)

    with locked(folder):
        if not folder.exists():
            put_folder(folder, fill)
    return folder


class _GrownLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, given from outside and grown once."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def lazy_initialization(self, *_: object) -> None:
        pass

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys = torch.cat([self.keys, key_states], dim=-2)
        self.values = torch.cat([self.values, value_states], dim=-2)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[-2] + query_length, 0

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2])

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length


class _Step(torch.nn.Module):
    """One step: tokens and caches in, logits and grown caches out."""

    def __init__(self, model: Any, kinds: list[str]) -> None:
        super().__init__()
        self.model, self.kinds = model, kinds
        self.head = PickingHead(model.get_output_embeddings())
        model.set_output_embeddings(self.head)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        wanted: torch.Tensor,
        mask: torch.Tensor,
        *rest: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        self.head.wanted = wanted
        windowed, past = rest[: len(self.kinds)], rest[len(self.kinds) :]
        masks = {"full_attention": mask, **dict(zip(self.kinds, windowed, strict=True))}
        layers = [_GrownLayer(*past[i : i + 2]) for i in range(0, len(past), 2)]
        output = self.model(
            input_ids=tokens,
            attention_mask=masks if self.kinds else mask,
            position_ids=positions,
            past_key_values=Cache(layers=layers),
            use_cache=True,
        )
        grown = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return (output.logits[0], *grown)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attention in the form that OpenVINO finds and runs as one operation; see `tree_attention`."""
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(f"token trees do not support attention with {unknown}")
    group = int(query.shape[1]) // int(key.shape[1])
    if group > 1:
        key, value = _repeat(key, group), _repeat(value, group)
    if softcap is None:
        output = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
    else:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
        output = (scores + attention_mask).softmax(-1) @ value
    return output.transpose(1, 2).contiguous(), None


def _repeat(part: torch.Tensor, group: int) -> torch.Tensor:
    """Each key head for the `group` query heads that read it, [D, h, C, d] to [D, H, C, d]."""
    rows, few, columns, width = part.shape
    wide = part[:, :, None].expand(rows, few, group, columns, width)
    return wide.reshape(rows, few * group, columns, width)


AttentionInterface.register(_ATTENTION, _attention)


def _convert(model: Any, facts: GraphFacts) -> Any:
    """The ``openvino.Model`` of one step."""
    # convert_model would do this too, and report to its maker that it was called.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    past = _past(model)
    if model._can_set_attn_implementation():
        model.set_attn_implementation(_ATTENTION)
    step = _Step(model, facts.masks())
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # Of branches that a trace fixes, which are those every step takes.
            warnings.simplefilter("ignore")
            decoder = TorchScriptPythonDecoder(step, example_input=_example(facts, past))
            front = FrontEndManager().load_by_framework("pytorch")
            graph = front.convert(front.load(decoder))
            return _stateful(graph, facts, past)
    except Exception as error:  # the tracer and the converter raise a dozen kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise EngineError(
            f"models of type '{facts.name}' cannot be made an OpenVINO graph: {reason}. Use the "
            "torch backend."
        ) from error


def _past(model: Any) -> list[torch.Tensor]:
    """Keys and values of each layer after some tokens of two rows, [2, h, 4, d]."""
    with torch.inference_mode():
        tokens = torch.arange(4).repeat(2, 1)
        layers = model(tokens, use_cache=True).past_key_values.layers
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def _example(facts: GraphFacts, past: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    rows, before, new = 2, past[0].shape[2], 3
    tokens = torch.arange(rows * new).view(rows, new) % facts.vocabulary
    positions = torch.arange(before, before + new).repeat(rows, 1)
    masks = [torch.zeros(rows, 1, new, before + new) for _ in range(1 + len(facts.masks()))]
    return (tokens, positions, torch.arange(4), *masks, *past)


def _stateful(graph: Any, facts: GraphFacts, past: list[torch.Tensor]) -> Any:
    """Make the caches variables that are empty at the start, rows by input ``rows``.

    OpenVINO recognises a cache that it may append to by the gather of rows before it.
    """
    from openvino import PartialShape, opset13
    from openvino.passes import MakeStateful, Manager

    named = [*INPUTS, *facts.masks()]
    for port, name in zip(graph.inputs, named, strict=False):
        port.get_tensor().set_names({name})
    rows = opset13.parameter([-1], np.int32, name="rows")
    rows.output(0).get_tensor().set_names({"rows"})
    pairs = []
    caches = graph.get_parameters()[len(named) :]
    for cache, grown, example in zip(caches, graph.get_results()[1:], past, strict=True):
        cache.set_partial_shape(PartialShape([-1, example.shape[1], -1, example.shape[3]]))
        readers = cache.output(0).get_target_inputs()
        picked = opset13.gather(cache, rows, opset13.constant(0))
        for reader in readers:
            reader.replace_source_output(picked.output(0))
        pairs.append((cache, grown))
    graph.add_parameters([rows])
    graph.validate_nodes_and_infer_types()
    passes = Manager()
    passes.register_pass(MakeStateful(pairs))
    passes.run_passes(graph)
    _start_empty(graph)
    return graph


def _start_empty(graph: Any) -> None:
    """Give every variable its first value: no columns, as many rows as there are trees."""
    from openvino import opset13

    shape = opset13.shape_of(graph.input("tokens"), output_type="i64")
    rows = opset13.gather(shape, opset13.constant([0]), opset13.constant(0))
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, width = node.get_output_partial_shape(0)
            rest = np.array([heads.get_length(), 0, width.get_length()])
            zero = opset13.constant(0.0, dtype=node.get_output_element_type(0))
            empty = opset13.broadcast(zero, opset13.concat([rows, opset13.constant(rest)], 0))
            node.set_arguments([empty])
    graph.validate_nodes_and_infer_types()


def _save(graph: Any, path: Path) -> None:
    import openvino

    try:
        openvino.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise EngineError(f"{path}: the graph cannot be written: {error}.") from error
