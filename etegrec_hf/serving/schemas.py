"""The fields of requests and answers."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LONGEST_QUERY = 200  # characters


class RecommendRequest(BaseModel):
    """A request for recommendations, with the options of the pipeline.

    Args:
        history (`list[str]`): item ids, oldest first.
        histories (`list[list[str]]`): histories of several users, instead of `history`.
        user_id (`str`): id of the user of `history`, whose encoder states are kept.
        exclude (`list[str]` or `list[list[str]]`): item ids that no history gets, or a list per history.
        allowed (`list[str]`): item ids to choose from.
        top_k (`int`): items per list.
        num_beams, exclude_history, rerank_weight, transition_weight: settings of the search; by default the model's
            own.
        unknown (`str`): `"skip"` leaves out ids that the model doesn't know; `"error"` refuses the request.
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
        None, max_length=200, description="Id of the user of `history`, whose encoder states are kept and extended."
    )
    exclude: list[str] | list[list[str]] | None = Field(
        None, description="Item ids that no history gets, or a list per history of `histories`."
    )
    allowed: list[str] | None = Field(None, description="Item ids to choose from.")
    top_k: int = Field(10, description="Items per list.")
    num_beams: int | None = Field(
        None, description="Prefixes that each level keeps; by default the model's own number."
    )
    exclude_history: bool | None = Field(
        None, description="Leave out items of the history; by default the model's own."
    )
    rerank_weight: float | None = Field(
        None, description="Weight of preference re-ranking; by default the model's own."
    )
    transition_weight: float | None = Field(None, description="Share of transition votes; by default the model's own.")
    unknown: Literal["error", "skip"] = Field("error", description="`skip` leaves out unknown ids.")
    on_empty: Literal["error", "empty", "popular"] = Field(
        "error", description="Answer to a history without known items: an error, an empty list or popular items."
    )


class ItemsQuery(BaseModel):
    """The query of `/items`."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(max_length=LONGEST_QUERY, description="Words of a title or an id.")
    limit: int = Field(10, ge=1, le=100, description="Largest number of items.")


class SimilarQuery(BaseModel):
    """The query of `/similar`."""

    model_config = ConfigDict(extra="forbid")

    item_id: str = Field(max_length=LONGEST_QUERY, description="An id of the catalogue.")
    limit: int = Field(10, ge=1, le=100, description="Largest number of items.")


QUERIES: dict[str, type[BaseModel]] = {"/items": ItemsQuery, "/similar": SimilarQuery}


class RecommendedItem(BaseModel):
    """An item of a list."""

    item_id: str
    title: str | None = Field(None, description="Left out if unknown.")
    score: float = Field(description="Log-probability, plus the part of re-ranking.")
    codes: list[str]
    popular: bool | None = Field(None, description="True for a popular item of `on_empty`; left out otherwise.")


class RecommendAnswer(BaseModel):
    """The answer to `history` (`items`) or to `histories` (`lists`)."""

    items: list[RecommendedItem] | None = None
    lists: list[list[RecommendedItem]] | None = None
    revision: str = Field(description="Revision of the model: a commit on the Hub, or a hash of the folder's files.")


class FoundItem(BaseModel):
    """An item that was looked up."""

    item_id: str
    title: str | None = None


class ItemsAnswer(BaseModel):
    """Items that a query found."""

    items: list[FoundItem]
    total: int = Field(description="Number of all such items.")
    revision: str


class SimilarAnswer(ItemsAnswer):
    """Items that share the longest prefix of codes with an item."""

    shared_codes: int = Field(description="Length of the prefix; 0 if no item shares even the first code.")


class ReadyAnswer(BaseModel):
    """The state of the server: whether a model is loaded, and the error of the last attempt to load its folder."""

    ready: bool
    revision: str | None
    error: str | None
