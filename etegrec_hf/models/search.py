"""The search for items over batches of users: what `recommend` and `sample_items` do."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import ClassVar

import torch
import torch.nn.functional as F

from .beam_search import Beam, BeamDecoder, beam_search, stochastic_beam_search
from .code_distribution import code_distribution
from .encoded_history import EncodedHistory
from .headwise_t5 import encode
from .histories import EncodedBatch, Histories

# Tokens that a search holds at a time: on a CPU as many as caches like, on a GPU enough to keep it busy
MAX_BATCH_TOKENS = {"cpu": 4096, "cuda": 131072}

NUM_BEAMS = 20  # where nobody says how many


@dataclass(frozen=True)
class SearchOptions:
    """How items are searched for.

    Args:
        top_k (`int`, *optional*, defaults to 10): items per user.
        num_beams (`int`, *optional*): prefixes that each level keeps, at least `top_k`; by default 20, or `top_k`
            where that is more.
        exclude_history (`bool`, *optional*, defaults to `False`): whether no user gets an item of their history.
        rerank_weight (`float`, *optional*, defaults to 0.0): weight of preference re-ranking, see `recommend`.
        transition_weight (`float`, *optional*, defaults to 0.0): share of transition votes, see `recommend`.
        max_batch_tokens (`int`, *optional*): bound of memory, see `recommend`.

    Raises:
        ValueError: something else than a number where one belongs.
        ValueError: `top_k` below 1.
        ValueError: a beam narrower than the list.
        ValueError: a negative or infinite `rerank_weight`.
        ValueError: a `transition_weight` outside 0 to 1.
        ValueError: `max_batch_tokens` below 1.
    """

    help_group: ClassVar[str] = "search"

    top_k: int = field(default=10, metadata={"help": "Items to recommend."})
    num_beams: int | None = field(
        default=None, metadata={"help": "Beams; by default 20, or `top_k` where that is more."}
    )
    exclude_history: bool = field(default=False, metadata={"help": "Recommend no item of the history."})
    rerank_weight: float = field(default=0.0, metadata={"help": "Weight of preference re-ranking, see `recommend`."})
    transition_weight: float = field(default=0.0, metadata={"help": "Share of transition votes, see `recommend`."})
    max_batch_tokens: int | None = field(default=None, metadata={"help": "Tokens that are decoded together at most."})

    def __post_init__(self):
        check_count("top_k", self.top_k)
        if self.num_beams is not None:
            check_count("num_beams", self.num_beams)
        for name in ("rerank_weight", "transition_weight"):
            check_number(name, getattr(self, name))
        check_flag("exclude_history", self.exclude_history)
        if self.beams < self.top_k:
            raise ValueError(
                f"`num_beams` is {self.beams} and `top_k` {self.top_k}; a beam must be at least as wide as the list."
            )
        if not 0 <= self.rerank_weight < math.inf:
            raise ValueError(f"`rerank_weight` is {self.rerank_weight}; give a weight of 0 or more.")
        if not 0 <= self.transition_weight < 1:
            raise ValueError(f"`transition_weight` is {self.transition_weight}; give a share from 0 on and below 1.")
        check_batch_tokens(self.max_batch_tokens)

    @property
    def beams(self) -> int:
        """Prefixes that each level keeps."""
        return max(NUM_BEAMS, self.top_k) if self.num_beams is None else self.num_beams

    def check_model(self, model) -> None:
        """Looks whether a model has what the weights need.

        Raises:
            ValueError: a `rerank_weight` for a model without an item tokenizer or without semantic embeddings.
            ValueError: a `transition_weight` for a model that keeps no transitions.
        """
        catalogue = model.catalogue
        if self.rerank_weight and (model.item_tokenizer is None or catalogue.semantic_embedding is None):
            lacking = "has_item_tokenizer" if model.item_tokenizer is None else "has_semantic_embedding"
            raise ValueError(
                f"`rerank_weight` is {self.rerank_weight} and the model's `{lacking}` is False, so that there are no "
                "preference latents and embeddings to rank by; leave it out."
            )
        if self.transition_weight and (catalogue.transitions is None or not catalogue.transitions.are_known):
            raise ValueError(
                f"`transition_weight` is {self.transition_weight} and the model keeps no transitions; train it with "
                "`num_transitions`, or give them to `catalogue.set_transitions`, or leave the weight out."
            )


@dataclass(frozen=True)
class SamplingOptions:
    """How items are drawn.

    Args:
        num_samples (`int`, *optional*, defaults to 16): items per user.
        temperature (`float`, *optional*, defaults to 1.0): above 1 draws more evenly.
        exclude_history, max_batch_tokens: as in [`SearchOptions`].

    Raises:
        ValueError: no samples.
        ValueError: a temperature that isn't a positive number beyond 1e-6.
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
                f"`num_samples` is {self.num_samples} and `temperature` {self.temperature}; both must be positive, "
                "and the temperature a number beyond 1e-6."
            )
        check_batch_tokens(self.max_batch_tokens)


def check_count(name: str, number: int, least: int = 1) -> None:
    """Raises a `ValueError` for something else than a whole number of `least` or more."""
    check_number(name, number, Integral, "a whole number")
    if number < least:
        raise ValueError(f"`{name}` is {number}; give {least} or more.")


def check_number(name: str, number: float, kind: type = Real, called: str = "a number") -> None:
    """Raises a `ValueError` for something else than a number of a kind; what looks like one counts as none."""
    if isinstance(number, bool) or not isinstance(number, kind):
        raise ValueError(f"`{name}` is {number!r}; give {called}.")


def check_flag(name: str, flag: bool) -> None:
    """Raises a `ValueError` for something else than `True` or `False`."""
    if not isinstance(flag, bool):
        raise ValueError(f"`{name}` is {flag!r}; give True or False.")


def check_batch_tokens(max_batch_tokens: int | None) -> None:
    """Raises a `ValueError` for a bound of memory that isn't a whole number, or is below 1."""
    if max_batch_tokens is not None:
        check_count("max_batch_tokens", max_batch_tokens)


class Reading:
    """Histories whose parts are encoded when a batch of them is decoded.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): whose encoder reads them.
        histories ([`Histories`]): each with at least one item.
    """

    def __init__(self, model, histories: Histories):
        histories.check_not_empty()
        self.model, self.whole = model, histories
        self.read = histories.last(model.config.max_tokens)

    def batch(self, rows: torch.LongTensor, columns: slice) -> EncodedBatch:
        """Returns these rows, encoded, without the columns in which none of them has a token."""
        part = self.read.part(rows, columns)
        item_vectors = self.model.item_vectors(part.input_ids)
        states = encode(self.model.encoder, part.input_ids, part.attention_mask, item_vectors)
        return EncodedBatch(part.input_ids, part.attention_mask, states)


class EncodedReading:
    """Histories that were encoded before, in the place of a [`Reading`].

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model that encoded them.
        encoded ([`EncodedHistory`]): histories.
    """

    def __init__(self, model, encoded: EncodedHistory):
        encoded.check_model("encoded", model)
        self.model, self.whole = model, encoded.histories
        self.read = encoded.read

    def batch(self, rows: torch.LongTensor, columns: slice) -> EncodedBatch:
        """Returns these rows as in [`Reading`]."""
        items = Histories(self.read.input_ids, self.read.attention_mask).part(rows, columns)
        per_position = self.read.tokens_per_position
        positions = slice(columns.start // per_position, columns.stop // per_position)
        return EncodedBatch(items.input_ids, items.attention_mask, self.read.states[rows, positions])


def reading_of(
    model,
    input_ids: torch.LongTensor | None = None,
    attention_mask: torch.LongTensor | None = None,
    encoded: EncodedHistory | None = None,
) -> Reading | EncodedReading:
    """Returns histories as [`search`] and [`sample`] take them; arguments as in `recommend`.

    Raises:
        ValueError: histories in both ways or in none.
        ValueError: a history of only padding or broken items, or one that a model of other sizes encoded.
    """
    if encoded is not None and input_ids is None and attention_mask is None:
        return EncodedReading(model, encoded)
    if input_ids is None or encoded is not None:
        raise ValueError("give histories either as `input_ids`, with their `attention_mask`, or as `encoded`.")
    return Reading(model, Histories.checked(model.config, input_ids, attention_mask))


@torch.no_grad()
def search(
    reading: Reading | EncodedReading,
    options: SearchOptions,
    exclude: torch.LongTensor | None = None,
    allowed: torch.LongTensor | None = None,
) -> Beam:
    """Finds each user's most probable items, in batches of users with histories of like length.

    Args:
        reading ([`Reading`] or [`EncodedReading`]): the users' histories, and the model.
        options ([`SearchOptions`]): how.
        exclude, allowed: as in `recommend`.

    Returns:
        [`Beam`] of `top_k` items per user.

    Raises:
        ValueError: weights for which the model lacks something.
        ValueError: item indices that don't exist or of the wrong shape, or no allowed item.
        ValueError: scores that are NaN.
    """
    model = reading.model
    options.check_model(model)
    constraints = model.catalogue.constraints(reading.whole, exclude, allowed, options.exclude_history)

    def find(encoded: EncodedBatch, rows: torch.LongTensor) -> Beam:
        distribution = code_distribution(
            model, encoded, constraints.of_users(rows), transition_weight=options.transition_weight
        )
        decoder = BeamDecoder(model, encoded)
        beam = beam_search(decoder, distribution, options.beams)
        return _reranked(beam, decoder, options.rerank_weight) if options.rerank_weight else beam

    return _in_batches(reading, options.top_k, options.beams, options.max_batch_tokens, find)


@torch.no_grad()
def sample(
    reading: Reading | EncodedReading,
    options: SamplingOptions,
    exclude: torch.LongTensor | None = None,
    allowed: torch.LongTensor | None = None,
    generator: torch.Generator | None = None,
) -> Beam:
    """Draws distinct items of each user; arguments and errors as in [`search`].

    Returns:
        [`Beam`] of `num_samples` items per user, in the order of the draw.
    """
    model = reading.model
    constraints = model.catalogue.constraints(reading.whole, exclude, allowed, options.exclude_history)

    def find(encoded: EncodedBatch, rows: torch.LongTensor) -> Beam:
        distribution = code_distribution(model, encoded, constraints.of_users(rows), temperature=options.temperature)
        return stochastic_beam_search(BeamDecoder(model, encoded), distribution, options.num_samples, generator)

    return _in_batches(reading, options.num_samples, options.num_samples, options.max_batch_tokens, find)


def preference_cosines(model, start_states: torch.FloatTensor, items: torch.LongTensor) -> torch.FloatTensor:
    """Returns how near items are to what users prefer.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): with an item tokenizer and semantic embeddings.
        start_states (`torch.FloatTensor` of shape `(users, 1, d_model)`): the decoder's first states.
        items (`torch.LongTensor` of shape `(users, n)`): item indices.

    Returns:
        `(users, n)` cosines of preference latents and semantic embeddings, in float32.
    """
    preference = model.preference_adapter(start_states)  # [users, 1, input_size]
    # no matrix product: autocast would round it
    return F.cosine_similarity(model.catalogue.semantic_embedding[items].float(), preference.float(), dim=-1)


def _reranked(beam: Beam, decoder: BeamDecoder, weight: float) -> Beam:
    """The beam's items in the order of their scores and `weight` times the cosine to the users' preference."""
    scores = beam.scores + weight * preference_cosines(decoder.model, decoder.start_states, beam.items)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return replace(beam, items=beam.items.gather(1, order), scores=scores)


def _in_batches(
    reading: Reading | EncodedReading,
    top_k: int,
    width: int,
    max_batch_tokens: int | None,
    find: Callable[[EncodedBatch, torch.LongTensor], Beam],
) -> Beam:
    """What `find` finds for all users: the first `top_k` items, and whole levels."""
    attention_mask = reading.read.attention_mask
    if not len(attention_mask):
        nothing = attention_mask.new_zeros((0, top_k))
        return Beam(nothing, nothing.float(), [], reading.model.catalogue.trie)
    places, beams = [], []
    for rows, columns in _batches(attention_mask, width, max_batch_tokens):
        places.append(rows)
        beams.append(find(reading.batch(rows, columns), rows))
    beam = Beam.join(beams, torch.cat(places)).first(top_k)
    if beam.scores.isnan().any():
        raise ValueError("the scores are NaN; the model's weights are damaged: load an earlier checkpoint.")
    return beam


def _batches(
    attention_mask: torch.LongTensor, num_beams: int, max_batch_tokens: int | None
) -> Iterator[tuple[torch.LongTensor, slice]]:
    """Rows to decode together, of like length, and the columns between their outermost tokens."""
    if max_batch_tokens is None:
        max_batch_tokens = MAX_BATCH_TOKENS.get(attention_mask.device.type, MAX_BATCH_TOKENS["cuda"])
    lengths, order = attention_mask.sum(1).sort(descending=True)
    lengths = lengths.tolist()
    start = 0
    while start < len(lengths):
        size = max(1, max_batch_tokens // (lengths[start] + num_beams))
        rows = order[start : start + size]
        used = attention_mask[rows].any(0).nonzero()
        yield rows, slice(used[0].item(), used[-1].item() + 1)
        start += size
