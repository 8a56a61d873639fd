"""The methods that are compared, and how each differs from the whole (arXiv 2509.16717)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssra_engine.config import Config

__all__ = ["METHODS", "Method", "adapted"]

# More documents than any query has: no query is popular.
_ALL_DOCUMENTS = 1 << 30


@dataclass(frozen=True)
class Method:
    """Where the embedder's training data comes from, beside the judgments.

    Attributes:
        title: in tables.
        writer: nobody, a language model as it comes, or one trained on judgments.
        reannotate: stage 1: pairs are graded by the score model, and popular queries thinned out.
        refine: stage 2: what the filters reject is left out, and rounds retrain the query model.
        binary: the embedder learns from labels 0 and 1.
    """

    title: str
    writer: Literal["prompt", "trained"] | None = None
    reannotate: bool = False
    refine: bool = False
    binary: bool = False


#: By name, in the order of the tables.
METHODS: Mapping[str, Method] = {
    "judgments": Method("judgments only"),
    "prompt": Method("prompt synthesis", "prompt"),
    "vanilla": Method("vanilla SFT", "trained"),
    "ssra-without-stage-1": Method("SSRA without stage 1", "trained", refine=True),
    "ssra-without-stage-2": Method("SSRA without stage 2", "trained", reannotate=True),
    "ssra": Method("SSRA", "trained", reannotate=True, refine=True),
    "judgments-binary": Method("judgments only, binary labels", binary=True),
    "ssra-binary": Method("SSRA, binary labels", "trained", True, True, binary=True),
}


def adapted(config: Config, method: Method, seed: int) -> Config:
    """The configuration of `build` and `run` for one method.

    All methods ask for equally many queries in one wave, and check their texts and de-duplicate
    alike. Without stage 2 there are no rounds, and neither score nor comparator rejects a query.
    """
    sections = {
        "annotate": {} if method.reannotate else {"max_documents_per_query": _ALL_DOCUMENTS},
        "synthesize": {"attempts": 1},
        "refine": {} if method.refine else {"rounds": 0},
        "filter": {} if method.refine else {"scored": False, "comparator": "none"},
    }
    changed = {
        name: getattr(config, name).model_copy(update=changes) for name, changes in sections.items()
    }
    return config.model_copy(update={**changed, "seed": seed})
