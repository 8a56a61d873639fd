"""Prompts as training examples: the same templates, tokens and limits as at inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ssra_engine.models.packing import Example
from ssra_engine.models.prompt_tokens import PromptTokens
from ssra_engine.prompts import LETTERS, STOP, PromptTemplate, collapse_whitespace

__all__ = ["QuestionEncoder"]


class QuestionEncoder:
    """Turns documents, queries and grades into training examples.

    Args:
        tokenizer: of the backbone, a fast one.
        template: prompt family.
        grades: size of the grade scale; the label of grade g is its digit.
        max_document_tokens: a longer prefix is cut at its end.
        max_query_tokens: a longer query to be learned is cut at its end.
        max_rationale_tokens: the same of a reason.

    Raises:
        EngineError: a grade's digit is not one token of this tokenizer.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: PromptTemplate,
        grades: int,
        *,
        max_document_tokens: int,
        max_query_tokens: int,
        max_rationale_tokens: int = 48,
    ) -> None:
        self._tokens = PromptTokens(tokenizer, max_document_tokens)
        self._template = template
        self._query_limit = max_query_tokens
        self._rationale_limit = max_rationale_tokens
        self.grades = grades
        self.labels = tuple(str(grade) for grade in range(grades))
        self.label_ids = tuple(self._tokens.label_ids(self.labels))
        self.pad_id = int(
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        self._query_suffixes = self._tokens.suffixes(template.query_suffixes(range(grades), grades))
        self._score_before, self._score_after, self._stop = self._tokens.suffixes(
            [*template.score_parts(grades), STOP]
        )
        lines = self._tokens.suffixes([template.opening, STOP, *template.field_labels.values()])
        self._structure = {*self._tokens.special, *(token for line in lines for token in line)}

    @property
    def letter_ids(self) -> tuple[int, ...]:
        """The tokens of `prompts.LETTERS`.

        Raises:
            EngineError: one is not one token of this tokenizer.
        """
        return tuple(self._tokens.label_ids(LETTERS))

    def prefixes(self, documents: Sequence[str]) -> list[list[int]]:
        """Token ids of document prefixes, special tokens first, cut to the limit."""
        return self._tokens.prefixes(documents)

    def content_tokens(self, prefix: Sequence[int]) -> list[int]:
        """The tokens of a prefix that are the document's own words."""
        return [token for token in prefix if token not in self._structure]

    def score_examples(
        self,
        documents: Sequence[int],
        queries: Sequence[str],
        grades: Sequence[int],
        weights: Sequence[float],
    ) -> list[Example]:
        """Ask for the grade of each query; the target is the grade's label token."""
        texts = self._template.score_suffixes(pa.array(queries, pa.string()), self.grades)
        return [
            Example(document, tuple(suffix), (self.label_ids[grade],), weight)
            for document, suffix, grade, weight in zip(
                documents, self._tokens.suffixes(texts.to_pylist()), grades, weights, strict=True
            )
        ]

    def compare_examples(
        self,
        documents: Sequence[int],
        first: Sequence[str],
        second: Sequence[str],
        answers: Sequence[int],
        weights: Sequence[float],
    ) -> list[Example]:
        """Ask which of two queries a document answers better; the target is that one's letter.

        Args:
            documents: index of each pair's document.
            first: called A.
            second: called B.
            answers: 0 for the first, 1 for the second.
            weights: of the examples.
        """
        asked = (pa.array(queries, pa.string()) for queries in (first, second))
        texts, letters = self._template.compare_suffixes(*asked), self.letter_ids
        return [
            Example(document, tuple(suffix), (letters[answer],), weight)
            for document, suffix, answer, weight in zip(
                documents, self._tokens.suffixes(texts.to_pylist()), answers, weights, strict=True
            )
        ]

    def rationale_examples(
        self,
        documents: Sequence[int],
        queries: Sequence[str],
        rationales: Sequence[str],
        grades: Sequence[int],
        weights: Sequence[float],
    ) -> list[Example]:
        """Ask for the reason of each grade, and for the grade after it: two examples a row."""
        before, _ = self._template.score_parts(self.grades)
        ask, after = self._template.rationale_parts(self.grades)
        asked = [f"{before}{query}{ask}" for query in _collapsed(queries)]
        written = self._tokens.suffixes([f" {text}" for text in _collapsed(rationales)])
        written = [ids[: self._rationale_limit] for ids in written]
        told = zip(asked, self._tokens.texts(written), strict=True)
        suffixes = self._tokens.suffixes(asked)
        longer = self._tokens.suffixes([f"{question}{text}{after}" for question, text in told])
        examples = []
        for row, document in enumerate(documents):
            reason = (*written[row], *self._stop)
            label = (self.label_ids[grades[row]],)
            examples += [
                Example(document, tuple(suffixes[row]), reason, weights[row], text=True),
                Example(document, tuple(longer[row]), label, weights[row]),
            ]
        return examples

    def query_examples(
        self,
        documents: Sequence[int],
        queries: Sequence[str],
        grades: Sequence[int],
        weights: Sequence[float],
    ) -> list[Example]:
        """Ask for a query of each grade; the target is the query and the stop."""
        texts = [self._template.completion(query).removesuffix(STOP) for query in queries]
        return [
            self._query_example(document, ids, grade, weight)
            for document, ids, grade, weight in zip(
                documents, self._tokens.suffixes(texts), grades, weights, strict=True
            )
        ]

    def score_tokens(self, document: int, query: Sequence[int], grade: int) -> Example:
        """As `score_examples`, for one query given in tokens."""
        suffix = (*self._score_before, *query, *self._score_after)
        return Example(document, suffix, (self.label_ids[grade],))

    def query_tokens(self, document: int, query: Sequence[int], grade: int) -> Example:
        """As `query_examples`, for one query given in tokens."""
        return self._query_example(document, query, grade, 1.0)

    def _query_example(
        self, document: int, query: Sequence[int], grade: int, weight: float
    ) -> Example:
        target = (*query[: self._query_limit], *self._stop)
        return Example(document, tuple(self._query_suffixes[grade]), target, weight)


def _collapsed(texts: Sequence[str]) -> list[str]:
    collapsed: list[str] = collapse_whitespace(pa.array(texts, pa.string())).to_pylist()
    return collapsed
