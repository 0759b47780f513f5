"""What requests and answers hold."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RecommendRequest(BaseModel):
    """Whom to recommend to, and how. The options are those of the pipeline.

    Args:
        history (`list[str]`): item ids, oldest first.
        histories (`list[list[str]]`): those of several users, instead.
        user_id (`str`): whose `history` it is, for encoder states that are kept.
        exclude (`list[str]` or `list[list[str]]`): item ids that nobody gets, or a list per history.
        allowed (`list[str]`): item ids to choose from.
        top_k (`int`): items per list.
        num_beams, exclude_history, rerank_weight, transition_weight: of the search; by default the model's own.
        unknown (`str`): `"error"`, or `"skip"` to pass over ids that the model doesn't know.
        on_empty (`str`): the answer to a history without items: `"error"`, `"empty"` or `"popular"`.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"example": {"history": ["item-1", "item-2"], "top_k": 10, "exclude_history": True}},
    )

    history: list[str] | None = Field(None, description="Item ids, oldest first.")
    histories: list[list[str]] | None = Field(None, description="Histories of several users, instead of `history`.")
    user_id: str | None = Field(
        None, max_length=200, description="Whose `history` it is: what was computed for its beginning is used again."
    )
    exclude: list[str] | list[list[str]] | None = Field(
        None, description="Item ids that nobody gets, or a list per history of `histories`."
    )
    allowed: list[str] | None = Field(None, description="Item ids to choose from.")
    top_k: int = Field(10, description="Items per list.")
    num_beams: int | None = Field(None, description="Prefixes that each level keeps; by default the model's own.")
    exclude_history: bool | None = Field(None, description="No item of the history; by default the model's own.")
    rerank_weight: float | None = Field(None, description="Weight of preference re-ranking; by default the model's.")
    transition_weight: float | None = Field(None, description="Share of transition votes; by default the model's own.")
    unknown: Literal["error", "skip"] = Field("error", description="`skip` passes over ids that aren't known.")
    on_empty: Literal["error", "empty", "popular"] = Field(
        "error", description="Answer to a history without known items: an error, an empty list or popular items."
    )


class RecommendedItem(BaseModel):
    """An item of a list."""

    item_id: str
    title: str | None = Field(None, description="Left out where it isn't known.")
    score: float = Field(description="Log-probability, to which re-ranking adds its part.")
    codes: list[str]
    popular: bool | None = Field(None, description="True for a popular item of `on_empty`; left out otherwise.")


class RecommendAnswer(BaseModel):
    """The answer to `history` (`items`) or to `histories` (`lists`)."""

    items: list[RecommendedItem] | None = None
    lists: list[list[RecommendedItem]] | None = None
    revision: str = Field(description="Of the model: a commit of the Hub, or a hash of the folder's files.")


class FoundItem(BaseModel):
    """An item that was looked up."""

    item_id: str
    title: str | None = None


class ItemsAnswer(BaseModel):
    """Items that a query found."""

    items: list[FoundItem]
    total: int = Field(description="How many there are in all.")
    revision: str


class SimilarAnswer(ItemsAnswer):
    """Items that share the longest prefix of codes with an item."""

    shared_codes: int = Field(description="Length of the prefix; 0 if no item shares even the first code.")


class ReadyAnswer(BaseModel):
    """Whether a model is loaded, and what went wrong when its folder was last read."""

    ready: bool
    revision: str | None
    error: str | None
