"""From requests to token trees, and from trees to batches; common to backends that share prefixes.

A *tree* is one document prefix (the trunk), the distinct suffixes asked of it (the leaves) and the
completions wanted from each leaf (the branches). Identical prompts become one leaf. Trees of like
shape go into one batch, and a batch is as large as its padded tokens allow, so neither a long
document nor a popular one makes the others pay. Everything follows from the request batch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ssra_engine.errors import EngineError
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["Prompts", "Tree", "grow_trees", "pack_trees", "read_prompts"]

#: A tree is split above these: its attention is quadratic in its suffix tokens, and a batch of
#: trees is padded to the one with most branches.
_MAX_BRANCHES = 32
_MAX_SUFFIX_TOKENS = 512
#: Prefixes whose lengths fall into one bucket count as equally long when trees are sorted.
_LENGTH_BUCKET = 8


@dataclass(frozen=True)
class Prompts:
    """The distinct prompt parts of a request batch, and which of them each of R requests uses.

    Attributes:
        prefixes: token ids of each distinct prefix.
        suffixes: token ids of each distinct suffix.
        prefix: int64[R], index into `prefixes`.
        suffix: int64[R], index into `suffixes`.
    """

    prefixes: list[list[int]]
    suffixes: list[list[int]]
    prefix: np.ndarray
    suffix: np.ndarray

    def __len__(self) -> int:
        return len(self.prefix)

    def tokens(self) -> int:
        """Prompt tokens of all requests, as if nothing were shared."""
        prefix_lengths, suffix_lengths = _lengths(self.prefixes), _lengths(self.suffixes)
        return int(prefix_lengths[self.prefix].sum() + suffix_lengths[self.suffix].sum())


@dataclass(frozen=True)
class Tree:
    """One document and what grows on it.

    Attributes:
        prefix: token ids of the document.
        suffixes: token ids of each leaf.
        leaf: leaf of each branch.
        branch: number of each branch in the caller's list.
    """

    prefix: Sequence[int]
    suffixes: list[list[int]]
    leaf: list[int]
    branch: list[int]

    @property
    def suffix_tokens(self) -> int:
        """Tokens of all leaves."""
        return sum(map(len, self.suffixes))


def read_prompts(batch: pa.RecordBatch, tokens: PromptTokens) -> Prompts:
    """Tokenise a batch of `engine.REQUESTS`, each distinct text once.

    Raises:
        EngineError: a column is missing, holds nulls, or is neither text nor token ids.
    """
    columns = []
    for name, encode in (("prefix", tokens.prefixes), ("suffix", tokens.suffixes)):
        if name not in batch.schema.names:
            raise EngineError(f"a request batch needs a column '{name}'.")
        index, values = _distinct(batch.column(name), name)
        texts = [value for value in values if isinstance(value, str)]
        lists = [value for value in values if not isinstance(value, str)]
        parts = encode(texts) if texts else lists
        columns.append((index, [tokens.cut(ids) for ids in parts] if name == "prefix" else parts))
    (prefix, prefixes), (suffix, suffixes) = columns
    return Prompts(prefixes, suffixes, prefix, suffix)


def grow_trees(
    prompts: Prompts, branch_request: np.ndarray, context: int | None, reserve: int
) -> list[Tree]:
    """Group branches by document, then by suffix.

    A prompt that would not leave `reserve` tokens of the model's `context` loses the end of its
    document. How much depends on that prompt alone, so prompts of one document may end up in
    different trees.

    Args:
        prompts: the prompts of a request batch.
        branch_request: int64[B], the request that each branch belongs to.
        context: positions of the model; None for no limit.
        reserve: tokens that will follow the prompt.

    Raises:
        EngineError: a suffix alone fills the context, or a prompt has no token at all.
    """
    prefix, suffix = prompts.prefix[branch_request], prompts.suffix[branch_request]
    kept = _kept_tokens(prompts, branch_request, context, reserve)
    order = np.lexsort((suffix, kept, prefix))
    edges = np.flatnonzero((np.diff(prefix[order]) != 0) | (np.diff(kept[order]) != 0)) + 1
    suffix_lengths = _lengths(prompts.suffixes)
    trees = []
    for group in np.split(order, edges) if len(order) else []:
        document = prompts.prefixes[prefix[group[0]]][: kept[group[0]]]
        for part in _split(group, suffix[group], suffix_lengths):
            leaves, leaf = np.unique(suffix[part], return_inverse=True)
            suffixes = [prompts.suffixes[i] for i in leaves]
            trees.append(Tree(document, suffixes, leaf.tolist(), part.tolist()))
    return trees


def pack_trees(
    trees: Sequence[Tree], batch_tokens: int, tokens_per_branch: int
) -> list[list[Tree]]:
    """Sort trees by shape and cut them into batches of at most `batch_tokens` padded tokens.

    A batch is padded to its longest prefix, its longest suffixes and its most branches, each of
    which takes `tokens_per_branch`. A tree that is larger than the budget is a batch of its own.
    """

    def shape(tree: Tree) -> tuple[int, int, int]:
        branches = len(tree.branch) if tokens_per_branch else 0
        return branches, -(-len(tree.prefix) // _LENGTH_BUCKET), tree.suffix_tokens

    batches: list[list[Tree]] = []
    widest = [0, 0, 0]
    for tree in sorted(trees, key=shape, reverse=True):
        size = [len(tree.prefix), tree.suffix_tokens, len(tree.branch) * tokens_per_branch]
        padded = [max(pair) for pair in zip(widest, size, strict=True)]
        if batches and sum(padded) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(tree)
            widest = padded
        else:
            batches.append([tree])
            widest = size
    return batches


def _kept_tokens(
    prompts: Prompts, branch_request: np.ndarray, context: int | None, reserve: int
) -> np.ndarray:
    """How many prefix tokens each branch keeps, int64[B]."""
    prefix_lengths: np.ndarray = _lengths(prompts.prefixes)[prompts.prefix[branch_request]]
    suffix_lengths = _lengths(prompts.suffixes)[prompts.suffix[branch_request]]
    empty = np.flatnonzero(prefix_lengths + suffix_lengths == 0)
    if len(empty):
        raise EngineError(f"request {branch_request[empty[0]]}: the prompt is empty.")
    if context is None:
        return prefix_lengths
    room = context - reserve - suffix_lengths
    over = np.flatnonzero((room < 0) | ((room == 0) & (suffix_lengths == 0)))
    if len(over):
        first = over[0]
        raise EngineError(
            f"request {branch_request[first]}: the suffix of {suffix_lengths[first]} tokens and "
            f"{reserve} new tokens do not fit the model's context of {context}. Shorten the suffix "
            "or ask for fewer tokens."
        )
    kept: np.ndarray = np.minimum(prefix_lengths, room)
    return kept


def _split(group: np.ndarray, suffix: np.ndarray, suffix_lengths: np.ndarray) -> list[np.ndarray]:
    """Cut the branches of a document (sorted by suffix) into even parts of at most the maxima."""
    first = np.concatenate([[True], np.diff(suffix) != 0])
    total = int(suffix_lengths[suffix[first]].sum())
    parts = max(-(-len(group) // _MAX_BRANCHES), -(-total // _MAX_SUFFIX_TOKENS))
    return np.array_split(group, min(parts, len(group))) if parts > 1 else [group]


def _distinct(column: pa.Array, name: str) -> tuple[np.ndarray, list[str] | list[list[int]]]:
    """Index of each row into the distinct values, and those values."""
    if column.null_count:
        raise EngineError(f"the request column '{name}' holds nulls.")
    inner = None
    if pa.types.is_dictionary(column.type):
        inner, column = column.indices.to_numpy(), column.dictionary
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        encoded = column.dictionary_encode()
        index, values = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    elif pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
        rows = [tuple(ids) for ids in column.to_pylist()]
        place = {ids: i for i, ids in enumerate(dict.fromkeys(rows))}
        index, values = np.array([place[ids] for ids in rows], np.int64), list(map(list, place))
    else:
        raise EngineError(
            f"the request column '{name}' must hold strings or lists of token ids, "
            f"got {column.type}."
        )
    index = index.astype(np.int64)
    return (index if inner is None else index[inner]), values


def _lengths(parts: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(map(len, parts), np.int64, len(parts))
