"""Options of a search or a draw: those that a call gives, and a model's own settings for the others."""

import math
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar

# options of a call by which only the probabilities of codes count, whatever a model's own settings say
BY_CODES_ALONE: dict[str, Any] = {"exclude_history": False, "rerank_weight": 0.0, "transition_weight": 0.0}


@dataclass(frozen=True)
class SearchSettings:
    """Search settings that a model can have of its own, as `search_settings` in its `config.json`.

    Args:
        num_beams (`int`, *optional*, defaults to 20): number of prefixes that each level keeps.
        exclude_history (`bool`, *optional*, defaults to `False`): whether to leave out items of the user's history.
        rerank_weight (`float`, *optional*, defaults to 0.0): weight of preference re-ranking, see `recommend`.
        transition_weight (`float`, *optional*, defaults to 0.0): share of transition votes, see `recommend`.

    Raises:
        ValueError: a weight or `num_beams` that isn't a number, or an `exclude_history` that isn't True or False.
        ValueError: `num_beams` below 1.
        ValueError: a negative or infinite `rerank_weight`.
        ValueError: a `transition_weight` outside 0 to 1.
    """

    num_beams: int = 20
    exclude_history: bool = False
    rerank_weight: float = 0.0
    transition_weight: float = 0.0

    def __post_init__(self):
        check_count("num_beams", self.num_beams)
        check_flag("exclude_history", self.exclude_history)
        for name in ("rerank_weight", "transition_weight"):
            check_number(name, getattr(self, name))
        if not 0 <= self.rerank_weight < math.inf:
            raise ValueError(f"`rerank_weight` is {self.rerank_weight}; give a weight of 0 or more.")
        if not 0 <= self.transition_weight < 1:
            raise ValueError(
                f"`transition_weight` is {self.transition_weight}; give a share of at least 0 and below 1."
            )

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "SearchSettings":
        """Makes settings from a mapping of names to values, with defaults for other names.

        Raises:
            ValueError: anything other than a mapping.
            ValueError: an unknown name.
            ValueError: values that the class refuses.
        """
        if not isinstance(settings, dict):
            raise ValueError(f"`search_settings` is {settings!r}; give a mapping of {', '.join(SETTINGS)}.")
        unknown = [name for name in settings if name not in SETTINGS]
        if unknown:
            raise ValueError(
                f"`search_settings` has the unknown name {unknown[0]!r}; choose among {', '.join(SETTINGS)}."
            )
        return cls(**settings)

    def check_model(self, model) -> None:
        """Checks that a model has the parts that the weights need.

        Raises:
            ValueError: a `rerank_weight` for a model without an item tokenizer or without semantic embeddings.
            ValueError: a `transition_weight` for a model that keeps no transitions.
        """
        if self.rerank_weight and not can_rerank(model):
            lacking = "has_item_tokenizer" if model.item_tokenizer is None else "has_semantic_embedding"
            raise ValueError(
                f"`rerank_weight` is {self.rerank_weight}, but the model's `{lacking}` is False, so that there are no "
                "preference latents or embeddings to rank by; give no weight, or 0 if it is the model's own setting."
            )
        if self.transition_weight and not can_vote(model):
            raise ValueError(
                f"`transition_weight` is {self.transition_weight}, but the model keeps no transitions; train it with "
                "`num_transitions`, set transitions with `catalogue.set_transitions`, or give no weight, or 0 if it "
                "is the model's own setting."
            )


SETTINGS = tuple(setting.name for setting in fields(SearchSettings))


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search for items; those left out follow the model's own settings, see [`SearchSettings`].

    Args:
        top_k (`int`, *optional*, defaults to 10): items per user.
        num_beams (`int`, *optional*): number of prefixes that each level keeps, at least `top_k`; by default the
            model's own setting, or `top_k` if that is larger.
        exclude_history (`bool`, *optional*): whether to leave out items of the user's history.
        rerank_weight (`float`, *optional*): weight of preference re-ranking, see `recommend`.
        transition_weight (`float`, *optional*): share of transition votes, see `recommend`.
        max_batch_tokens (`int`, *optional*): limit of memory, see `recommend`.

    Raises:
        ValueError: values that [`SearchSettings`] refuses.
        ValueError: `top_k` or `max_batch_tokens` that isn't a whole number, or is below 1.
        ValueError: `num_beams` below `top_k`.
    """

    help_group: ClassVar[str] = "search"

    top_k: int = field(default=10, metadata={"help": "Items to recommend per history."})
    num_beams: int | None = field(
        default=None,
        metadata={"help": "Width of the beam search; by default the model's own setting, or `top_k` if larger."},
    )
    exclude_history: bool | None = field(
        default=None,
        metadata={
            "help": "Leave out items of the history; by default the model's own setting.",
            "nargs": "?",
            "const": True,
        },
    )
    rerank_weight: float | None = field(
        default=None, metadata={"help": "Weight of re-ranking by preference latents; by default the model's own."}
    )
    transition_weight: float | None = field(
        default=None,
        metadata={"help": "Share of votes (counts of what came next), 0 to 1; by default the model's own."},
    )
    max_batch_tokens: int | None = field(
        default=None, metadata={"help": "Largest number of tokens that are decoded together; limits memory."}
    )

    def __post_init__(self):
        check_count("top_k", self.top_k)
        SearchSettings.of(self.given())  # raises for wrong values
        if self.num_beams is not None and self.num_beams < self.top_k:
            raise ValueError(
                f"`num_beams` is {self.num_beams} and `top_k` is {self.top_k}; a beam must be at least as wide as "
                "the list."
            )
        check_batch_tokens(self.max_batch_tokens)

    def given(self) -> dict[str, Any]:
        """Returns the settings that were given, by name."""
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}

    def for_model(self, model) -> SearchSettings:
        """Returns the settings of a search with a model: those given, then the model's own, then the defaults.

        Raises:
            ValueError: settings of the model that [`SearchSettings`] refuses.
            ValueError: a weight that needs a part which the model lacks.
        """
        given = self.given()
        settings = SearchSettings.of({**model.config.search_settings, **given})
        if "num_beams" not in given:
            settings = replace(settings, num_beams=max(settings.num_beams, self.top_k))
        settings.check_model(model)
        return settings


@dataclass(frozen=True)
class SamplingOptions:
    """Options of a draw of items.

    Args:
        num_samples (`int`, *optional*, defaults to 16): items per user.
        temperature (`float`, *optional*, defaults to 1.0): number that logits are divided by; above 1, items are drawn
            more evenly.
        exclude_history, max_batch_tokens: as in [`SearchOptions`].

    Raises:
        ValueError: `num_samples` below 1.
        ValueError: a temperature that isn't a finite number above 1e-6.
        ValueError: `max_batch_tokens` below 1.
    """

    num_samples: int = 16
    temperature: float = 1.0
    exclude_history: bool = False
    max_batch_tokens: int | None = None

    def __post_init__(self):
        check_number("num_samples", self.num_samples, Integral, "a whole number")
        check_number("temperature", self.temperature)
        check_flag("exclude_history", self.exclude_history)
        if self.num_samples < 1 or not 1e-6 < self.temperature < math.inf:
            raise ValueError(
                f"`num_samples` is {self.num_samples} and `temperature` is {self.temperature}; `num_samples` must be "
                "at least 1, and the temperature a finite number above 1e-6."
            )
        check_batch_tokens(self.max_batch_tokens)


def check_count(name: str, number: int, least: int = 1) -> None:
    """Raises a `ValueError` unless `number` is a whole number of at least `least`."""
    check_number(name, number, Integral, "a whole number")
    if number < least:
        raise ValueError(f"`{name}` is {number}; give {least} or more.")


def check_number(name: str, number: float, kind: type = Real, called: str = "a number") -> None:
    """Raises a `ValueError` unless `number` is a number of this kind; True, False and strings aren't numbers."""
    if isinstance(number, bool) or not isinstance(number, kind):
        raise ValueError(f"`{name}` is {number!r}; give {called}.")


def check_flag(name: str, flag: bool) -> None:
    """Raises a `ValueError` unless `flag` is `True` or `False`."""
    if not isinstance(flag, bool):
        raise ValueError(f"`{name}` is {flag!r}; give True or False.")


def check_batch_tokens(max_batch_tokens: int | None) -> None:
    """Raises a `ValueError` for a limit of memory that isn't a whole number, or is below 1."""
    if max_batch_tokens is not None:
        check_count("max_batch_tokens", max_batch_tokens)


def can_rerank(model) -> bool:
    """Returns whether a model has the item tokenizer and embeddings that preference re-ranking needs."""
    return model.item_tokenizer is not None and model.catalogue.semantic_embedding is not None


def can_vote(model) -> bool:
    """Returns whether a model keeps transitions."""
    return model.catalogue.transitions is not None and model.catalogue.transitions.are_known
