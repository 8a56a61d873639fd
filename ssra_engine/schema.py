"""Every Arrow table of the project, by name."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "ANNOTATED",
    "ANSWERS",
    "CORPUS",
    "D2Q",
    "DESCRIPTION_REASONS",
    "DOCUMENT_TEXT_COLUMNS",
    "JUDGMENTS",
    "NEGATIVES",
    "PAIRS",
    "RATIONALES",
    "REASONS",
    "REJECTED",
    "REJECTED_DESCRIPTIONS",
    "REJECTED_RATIONALES",
    "STAGED",
    "SYNTHETIC",
]

#: Columns that hold a document's words, in the order in which a prompt shows them.
DOCUMENT_TEXT_COLUMNS = ("title", "text", "ocr", "asr")

#: Why a sample or a document was rejected.
REASONS = (
    "empty",
    "too_long",
    "copied",
    "duplicate",
    "near_duplicate",
    "score_mismatch",
    "low_confidence",
    "pairwise_inconsistent",
    "error",
)

#: The same of a description, and one more: it says next to nothing of what its document says.
DESCRIPTION_REASONS = (*REASONS, "unrelated")

#: Documents as the pipeline sees them: every text column present and never null.
CORPUS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in DOCUMENT_TEXT_COLUMNS),
    ]
)

JUDGMENTS = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("grade", pa.int8(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

#: Judgments with why each has its grade, null where nobody said.
RATIONALES = pa.schema([*JUDGMENTS, pa.field("rationale", pa.string())])

PAIRS = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
    ]
)

#: Pairs graded by the score model (stage 1), or by people (source "judgment", one-hot probs).
ANNOTATED = pa.schema(
    [
        *PAIRS,
        pa.field("grade", pa.int8(), nullable=False),
        pa.field("probs", pa.list_(pa.float32()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)

#: What annotators answered on the audit page, in order (`auditing.answers`).
ANSWERS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("sample_key", pa.string(), nullable=False),
        *PAIRS,
        pa.field("label", pa.string()),
        pa.field("annotator", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

#: Training data of the query model: one document (as its prompt prefix) with several queries of
#: different grades.
D2Q = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("document", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("grade", pa.int8(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)

#: Hard negatives of a pair: `doc_id` and `score` are the positive's; the lists are equally long, by
#: falling score, and a grade is null where nobody gave one.
NEGATIVES = pa.schema(
    [
        *PAIRS,
        pa.field("score", pa.float32(), nullable=False),
        pa.field("negative_doc_ids", pa.list_(pa.string()), nullable=False),
        pa.field("negative_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("negative_grades", pa.list_(pa.int8()), nullable=False),
    ]
)

SYNTHETIC = pa.schema(
    [
        pa.field("query", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("target", pa.int8()),
        pa.field("grade", pa.int8()),
        pa.field("probs", pa.list_(pa.float32())),
        pa.field("confidence", pa.float32()),
        pa.field("round", pa.int16()),
        pa.field("sample", pa.int16()),
        pa.field("seed", pa.uint64()),
    ]
)

#: Synthetic rows that were not kept. A whole document that failed has no query and no target;
#: `message` says why.
REJECTED = pa.schema(
    [
        *SYNTHETIC,
        pa.field("reason", pa.dictionary(pa.int8(), pa.string())),
        pa.field("message", pa.string()),
    ]
)

#: Descriptions of documents that are of no use: what the teacher wrote, null where it was nothing,
#: and why. `message` says what failed.
REJECTED_DESCRIPTIONS = pa.schema(
    [
        pa.field("doc_id", pa.string()),
        pa.field("description", pa.string()),
        pa.field("reason", pa.dictionary(pa.int8(), pa.string())),
        pa.field("message", pa.string()),
    ]
)

#: The same of rationales; `written` is what the teacher wrote.
REJECTED_RATIONALES = pa.schema(
    [
        pa.field("query", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("grade", pa.int8()),
        pa.field("written", pa.string()),
        pa.field("reason", pa.dictionary(pa.int8(), pa.string())),
        pa.field("message", pa.string()),
    ]
)

#: One shard of a run before its end: every sample, `reason` null where it is kept, with the key
#: (`stages.deduplicate.sample_keys`) of each and the tokens that the query model wrote.
STAGED = pa.schema(
    [
        *REJECTED,
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("tokens", pa.int32()),
        pa.field("compared", pa.int32()),
        pa.field("flipped", pa.int32()),
    ]
)
