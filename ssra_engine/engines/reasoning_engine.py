"""A score model that writes a reason before each grade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.engines.engine import REQUESTS, Engine, Sampling
from ssra_engine.prompts import STOP, PromptTemplate, collapse_whitespace

__all__ = ["ReasoningEngine"]


class ReasoningEngine(Engine):
    """Scores after a reason that the model itself has written, greedily.

    Args:
        engine: of a score model that was trained with reasons.
        template: its prompts.
        grades: size of its scale.
        max_new_tokens: a longer reason is cut.
    """

    def __init__(
        self, engine: Engine, template: PromptTemplate, grades: int, *, max_new_tokens: int
    ) -> None:
        super().__init__()
        self.name = engine.name
        self.stats = engine.stats
        self._engine = engine
        self._plain = template.score_parts(grades)[1]
        self._ask, self._after = template.rationale_parts(grades)
        self._sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0, stop=(STOP,))

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.generate_batches`."""
        return self._engine.generate_batches(batches, sampling)

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.score_batches`; suffixes are those of `PromptTemplate.score_suffixes`."""
        for batch in batches:
            yield from self._engine.score_batches([self._reasoned(batch)], labels)

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        return self._engine.limits()

    def close(self) -> None:
        """Release the model."""
        self._engine.close()

    def _reasoned(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same requests with a reason in each."""
        suffixes = batch.column("suffix")
        assert pc.all(pc.ends_with(suffixes, self._plain)).as_py()
        questions = pc.utf8_slice_codeunits(suffixes, 0, -len(self._plain))
        asked = pc.binary_join_element_wise(questions, self._ask, "")
        (written,) = self._engine.generate_batches([_with(batch, asked)], self._sampling)
        reasons = collapse_whitespace(written.column("text"))
        told = pc.binary_join_element_wise(asked, " ", reasons, self._after, "")
        return _with(batch, told)


def _with(batch: pa.RecordBatch, suffixes: pa.Array) -> pa.RecordBatch:
    columns = [batch.column("prefix"), suffixes, batch.column("seed")]
    return pa.RecordBatch.from_arrays(columns, schema=REQUESTS)
