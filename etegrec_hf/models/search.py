"""The search for items over batches of users: what `recommend` and `sample_items` do."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from .beam_search import Beam, BeamDecoder, beam_search, stochastic_beam_search
from .code_distribution import code_distribution
from .encoded_history import EncodedHistory
from .headwise_t5 import encode
from .histories import EncodedBatch, Histories
from .search_options import SamplingOptions, SearchOptions

# Tokens that a search holds at a time: on a CPU as many as caches like, on a GPU enough to keep it busy
MAX_BATCH_TOKENS = {"cpu": 4096, "cuda": 131072}


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
    settings = options.for_model(model)
    constraints = model.catalogue.constraints(reading.whole, exclude, allowed, settings.exclude_history)

    def find(encoded: EncodedBatch, rows: torch.LongTensor) -> Beam:
        distribution = code_distribution(
            model, encoded, constraints.of_users(rows), transition_weight=settings.transition_weight
        )
        decoder = BeamDecoder(model, encoded)
        beam = beam_search(decoder, distribution, settings.num_beams)
        if settings.rerank_weight:
            cosines = preference_cosines(model, decoder.start_states, beam.items)
            beam = reranked(beam, cosines, settings.rerank_weight)
        return beam

    return _in_batches(reading, options.top_k, settings.num_beams, options.max_batch_tokens, find)


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


@torch.no_grad()
def start_states(reading: Reading | EncodedReading) -> torch.FloatTensor:
    """Returns the decoder's first states `(users, 1, d_model)`, as [`preference_cosines`] takes them."""
    attention_mask = reading.read.attention_mask
    rows = torch.arange(len(attention_mask), device=attention_mask.device)
    decoder = BeamDecoder(reading.model, reading.batch(rows, slice(0, attention_mask.shape[1])))
    return decoder.step(torch.zeros_like(rows).unsqueeze(1))


def reranked(beam: Beam, cosines: torch.FloatTensor, weight: float) -> Beam:
    """Returns the beam's items in the order of their scores and `weight` times `cosines` `(users, found)`."""
    scores, order = (beam.scores + weight * cosines).sort(dim=1, descending=True, stable=True)
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
