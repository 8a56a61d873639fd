"""How a teacher is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["RationaleConfig", "RewriteConfig", "TeacherConfig"]


class TeacherConfig(BaseModel):
    """Prompts and generation of a teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: Literal["plain", "instruct"] = Field(
        "instruct", description="prompt templates; plain for a model that was trained on them"
    )
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    max_document_tokens: int = Field(1024, ge=8, description="a longer document is cut at its end")
    max_new_tokens: int = Field(192, ge=1)
    max_chars: int = Field(1000, ge=1, description="a longer text is not used")


class RewriteConfig(TeacherConfig):
    """Stage 0: descriptions of documents."""

    keep_ocr_asr: bool = Field(
        False, description="keep ocr and asr beside the description that was made of them"
    )
    min_overlap: float = Field(
        0.1,
        ge=0,
        le=1,
        description="a description is not used when less of its 4-letter pieces (2 characters in "
        "Chinese, Japanese and Korean) stands in its document; 0 lets all pass",
    )


class RationaleConfig(TeacherConfig):
    """Reasons for judged pairs."""

    split: str = Field("train", description="rows that get a reason, or all")
    max_new_tokens: int = Field(64, ge=1)
    max_chars: int = Field(300, ge=1, description="a longer reason is not used")
