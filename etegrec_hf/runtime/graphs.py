"""The two networks of an export: one reads histories up to the first logits, one reads one more code per beam.

They compute what `headwise_t5.encode` and `BeamDecoder` compute, with weights in a layout that runtimes run fast: one
product gives queries, keys and values, and tables hold item vectors and position biases. `tests/runtime` checks that
both give the same results.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from ..models.code_trie import CodeTrie
from ..models.headwise_t5 import check_unhooked, encoder_bias, plain_weight
from ..models.item_transitions import PairGains
from ..models.search_options import can_rerank
from ..models.softmax_mixture import SMALLEST
from ..models.target_decoder import StartProjection

Pair = tuple[Tensor, Tensor]  # keys and values


def check_exportable(model) -> None:
    """Checks that all layers are those of a checkpoint of this package.

    Raises:
        ValueError: a layer that was replaced, as by an adapter or quantisation.
        ValueError: a layer that has a hook.
        ValueError: weights that are offloaded.
    """
    for stack in (model.encoder, model.decoder):
        check_unhooked(stack)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Embedding, T5LayerNorm)) or hasattr(module, "base_layer"):
            is_ours = plain_weight(module) is not None or type(module) is StartProjection
            if not is_ours or any(weight.is_meta for weight in module.parameters(recurse=False)):
                raise ValueError(
                    f"`{name}` is a {type(module).__name__} whose weights aren't those of a checkpoint, or with a "
                    "hook; merge adapters, remove hooks, and load the model without quantisation and offloading."
                )


class Norm(nn.Module):
    """T5's layer norm."""

    def __init__(self, layer_norm: nn.Module):
        super().__init__()
        self.epsilon = layer_norm.variance_epsilon
        self.register_buffer("weight", layer_norm.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden / (hidden.pow(2).mean(-1, keepdim=True) + self.epsilon).sqrt() * self.weight


class Product(nn.Module):
    """Several linear layers without bias, applied to the same states in one product; their outputs are joined."""

    def __init__(self, *linear: nn.Module):
        super().__init__()
        self.register_buffer("weight", torch.cat([one.weight for one in linear]).T.contiguous())

    def forward(self, states: Tensor) -> Tensor:
        return states @ self.weight


class FeedForward(nn.Module):
    """T5's feed-forward layer with its norm and residual, gated or not."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        dense = layer.DenseReluDense
        self.norm, self.act, self.is_gated = Norm(layer.layer_norm), dense.act, not hasattr(dense, "wi")
        self.inner = Product(dense.wi_0, dense.wi_1) if self.is_gated else Product(dense.wi)
        self.outer = Product(dense.wo)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.inner(self.norm(hidden))
        if self.is_gated:
            gate, inner = inner.chunk(2, dim=-1)
            inner = self.act(gate) * inner
        else:
            inner = self.act(inner)
        return hidden + self.outer(inner)


def by_head(states: Tensor, heads: int) -> Tensor:
    """Returns states `[batch, heads, n, d_kv]`, given `[batch, n, heads * d_kv]`."""
    return states.unflatten(2, (heads, -1)).transpose(1, 2)


def attended(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Returns attention `[batch, n, *]` of queries `[batch, heads, n, d_kv]` to `m` keys and values."""
    scores = query @ keys.transpose(2, 3) + bias  # [batch, heads, n, m]
    return (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """T5's self-attention with its norm; it computes queries, keys and values."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        attention = layer.SelfAttention
        self.heads, self.norm, self.output = attention.n_heads, Norm(layer.layer_norm), Product(attention.o)
        self.projections = Product(attention.q, attention.k, attention.v)

    def project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        parts = self.projections(self.norm(hidden)).chunk(3, dim=2)
        return tuple(by_head(part, self.heads) for part in parts)


class DecoderBlock(nn.Module):
    """A block of T5's decoder over the beams of users; its caches are arguments."""

    def __init__(self, block: nn.Module):
        super().__init__()
        cross = block.layer[1].EncDecAttention
        self.self_attention, self.cross_norm = SelfAttention(block.layer[0]), Norm(block.layer[1].layer_norm)
        self.query, self.output, self.feed_forward = Product(cross.q), Product(cross.o), FeedForward(block.layer[-1])

    def first(self, hidden: Tensor, cross: Pair, cross_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns states, keys and values of the decoder start, which attends only to itself."""
        _, key, value = self.self_attention.project(hidden)
        hidden = hidden + self.self_attention.output(value.transpose(1, 2).flatten(2))
        return self._rest(hidden, cross, cross_bias), key, value

    def next(self, hidden: Tensor, past: Pair, bias: Tensor, cross: Pair, cross_bias: Tensor):
        """Returns states, and all keys and values, after one more code per beam."""
        query, key, value = self.self_attention.project(hidden)
        keys, values = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        hidden = hidden + self.self_attention.output(attended(query, keys, values, bias))
        return self._rest(hidden, cross, cross_bias), keys, values

    def _rest(self, hidden: Tensor, cross: Pair, cross_bias: Tensor) -> Tensor:
        query = by_head(self.query(self.cross_norm(hidden)), self.self_attention.heads)
        return self.feed_forward(hidden + self.output(attended(query, *cross, cross_bias)))


class Decoder(nn.Module):
    """The decoder's blocks, and the product that gives the logits of one level's codes."""

    def __init__(self, model):
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(block) for block in model.decoder.block)
        self.norm, config = Norm(model.decoder.final_layer_norm), model.config
        scale = config.d_model**-0.5 if config.scale_logits else 1.0
        codes = scale * model.shared.weight[1:].unflatten(0, (config.code_length, config.codebook_size))
        self.register_buffer("tokens", model.shared.weight)
        self.register_buffer("codes", codes.transpose(1, 2).contiguous())  # [code_length, d_model, K]

    def log_p(self, states: Tensor, level: Tensor) -> Tensor:
        """Returns log-probabilities `[users, beams, K]` of all codes of a level `[1]`."""
        return (states @ self.codes.index_select(0, level)).log_softmax(-1)


class HistoryGraph(nn.Module):
    """A network that reads histories and makes the decoder's first step.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the recommender, in float32.
    """

    def __init__(self, model):
        super().__init__()
        config, catalogue = model.config, model.catalogue
        self.per_item, self.lowest = config.positions_per_item, torch.finfo(torch.float32).min / 2
        heads, positions = config.num_heads, (config.max_history + 1) * self.per_item  # one more: a part is never all
        shown = torch.ones(1, positions, dtype=torch.long)
        self.heads, self.decoder = heads, Decoder(model)
        self.register_buffer("bias", encoder_bias(model.encoder, shown, torch.float32).contiguous())
        self.attention = nn.ModuleList(SelfAttention(block.layer[0]) for block in model.encoder.block)
        self.feed_forward = nn.ModuleList(FeedForward(block.layer[-1]) for block in model.encoder.block)
        self.norm = Norm(model.encoder.final_layer_norm)
        cross = [block.layer[1].EncDecAttention for block in model.decoder.block]
        self.cross = Product(*(one for attention in cross for one in (attention.k, attention.v)))
        items = torch.arange(config.n_items + 1)
        vectors = None if model.item_inputs is None else model.item_inputs(items, catalogue.semantic_embedding[items])
        self.reads_vectors, self.reads_tokens = vectors is not None and self.per_item > 1, self.per_item > 1
        if self.reads_tokens:
            self.register_buffer("item_tokens", catalogue.item_tokens)
        else:  # a position is an item, so that one row per item is all that is read
            vectors = model.encoder.embed(catalogue.item_tokens, None if vectors is None else vectors.unsqueeze(1))[
                :, 0
            ]
        self.register_buffer("vectors", vectors)
        recency = model.decoder.recency_bias
        self.register_buffer("recency", None if recency is None else recency(torch.arange(config.max_history)).T)
        start = model.decoder.start_projection
        self.start = None if start is None else Product(start)
        self.preference = model.preference_adapter if can_rerank(model) else None
        self.item_logits = None if model.item_logits is None else ItemScores(model)

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        """Reads item indices `[users, items]`, oldest first, then 0.

        Returns:
            `log_p` `[users, 1, K]` of the first level, the decoder's caches, and `cross_bias` and `start` for its
            steps. If the model has them, also `item_logits` `[users, leaves]` and `preference` `[users, input_size]`.
        """
        lengths = (items > 0).sum(1, keepdim=True)  # [users, 1]
        item_of = torch.arange(items.shape[1] * self.per_item) // self.per_item  # [positions]
        items_back = (lengths - 1).unsqueeze(2) - item_of  # [users, 1, positions]
        unseen = torch.where(items_back < 0, self.lowest, 0.0)  # [users, 1, positions]
        hidden = self._embedded(items)
        positions = hidden.shape[1]
        bias = self.bias[:, :positions, :positions] + unseen.unsqueeze(1)  # [users, heads, positions, positions]
        for attention, feed_forward in zip(self.attention, self.feed_forward):
            query, keys, values = attention.project(hidden)
            hidden = feed_forward(hidden + attention.output(attended(query, keys, values, bias)))
        states = self.norm(hidden)
        last = (lengths * self.per_item - 1).clamp(min=0).unsqueeze(2)
        last_states = states.gather(1, last.expand(-1, -1, states.shape[2]))  # [users, 1, d_model]
        cross_bias = unseen.unsqueeze(1)  # [users, 1, 1, positions]
        if self.recency is not None:
            of_heads = self.recency[items_back.squeeze(1).clamp(min=0)]  # [users, positions, heads]
            cross_bias = cross_bias + of_heads.transpose(1, 2).unsqueeze(2)
        return self._first_step(states, last_states, cross_bias) | self._of_items(items, lengths, last_states)

    def _embedded(self, items: Tensor) -> Tensor:
        if not self.reads_tokens:
            return self.vectors[items]
        hidden = self.decoder.tokens[self.item_tokens[items].flatten(1)]
        if self.reads_vectors:
            hidden = hidden + self.vectors[items].unsqueeze(2).expand(-1, -1, self.per_item, -1).flatten(1, 2)
        return hidden

    def _first_step(self, states: Tensor, last_states: Tensor, cross_bias: Tensor) -> dict[str, Tensor]:
        outputs = {"cross_bias": cross_bias}
        hidden = self.decoder.tokens[:1].expand(states.shape[0], 1, -1)
        if self.start is not None:
            outputs["start"] = self.start(last_states)
            hidden = hidden + outputs["start"]
        parts = self.cross(states).chunk(2 * len(self.decoder.blocks), dim=2)
        for layer, block in enumerate(self.decoder.blocks):
            cross = by_head(parts[2 * layer], self.heads), by_head(parts[2 * layer + 1], self.heads)
            hidden, key, value = block.first(hidden, cross, cross_bias)
            caches = dict(zip(cache_names(layer), (*cross, key, value)))
            outputs |= {name: cache.contiguous() for name, cache in caches.items()}
        first = self.decoder.norm(hidden)
        outputs["log_p"] = self.decoder.log_p(first, torch.zeros(1, dtype=torch.long))
        if self.preference is not None:
            outputs["preference"] = self.preference(first).squeeze(1)
        return outputs

    def _of_items(self, items: Tensor, lengths: Tensor, last_states: Tensor) -> dict[str, Tensor]:
        if self.item_logits is None:
            return {}
        return {"item_logits": self.item_logits(items, lengths, last_states.squeeze(1))}


class ItemScores(nn.Module):
    """The item logits of [`ItemLogits`], `[users, leaves]` in the order of the trie's leaves."""

    def __init__(self, model):
        super().__init__()
        logits, trie = model.item_logits, model.catalogue.trie
        known, parts = (model.item_inputs, model.catalogue.semantic_embedding), len(logits.members)
        self.newest = logits.newest
        leaves = logits.vectors_of(*known, trie.leaf_items).T.chunk(parts)  # [d_model, leaves] each
        self.members = nn.ModuleList(map(MemberScores, logits.members, leaves))
        vectors = logits.vectors_of(*known, torch.arange(model.config.n_items + 1)) if self.newest else None
        self.register_buffer("vectors", vectors)
        transitions = model.catalogue.transitions
        gains = None if transitions is None else transitions.gains
        self.pairs = None if gains is None else PairScores(gains, trie.leaf(transitions.items.long()), trie)

    def forward(self, items: Tensor, lengths: Tensor, last_states: Tensor) -> Tensor:
        place = lengths - 1 - torch.arange(self.newest)  # [users, newest], newest first
        recent = items.gather(1, place.clamp(min=0)) * (place >= 0)
        read = [last_states.new_zeros(1)] * len(self.members)
        if self.newest:  # [users, newest, d_model] each, 0 for shorter histories
            read = self.vectors[recent].chunk(len(self.members), dim=2)
        scores = [member(last_states, recent, vectors) for member, vectors in zip(self.members, read)]
        if self.pairs is not None:
            scores = [self.pairs(logits, recent) for logits in scores]
        if len(scores) == 1:
            return scores[0]
        mean = sum(logits.softmax(1) for logits in scores) / len(scores)
        return mean.clamp(min=SMALLEST).log()


class MemberScores(nn.Module):
    """The item logits of one [`ItemScorer`], `[users, leaves]`.

    Args:
        scorer ([`ItemScorer`]): the member of the ensemble.
        leaves (`torch.FloatTensor` of shape `(d_model, leaves)`): its vectors of the trie's leaves.
    """

    def __init__(self, scorer, leaves: Tensor):
        super().__init__()
        self.query = Product(scorer.query)
        self.register_buffer("leaves", leaves.contiguous())
        self.register_buffer("recency", None if scorer.recency is None else scorer.recency.unsqueeze(1))
        self.mixed = nn.ModuleList(Product(ask) for ask in scorer.mixed or ())
        self.shares = scorer.shares if self.mixed else None

    def forward(self, last_states: Tensor, recent: Tensor, vectors: Tensor) -> Tensor:
        asking = last_states
        if self.recency is not None:
            asking = (vectors[:, : self.recency.shape[0]] * self.recency).sum(1)
        logits = self.query(asking) @ self.leaves
        if self.shares is None:
            return logits
        lacks = F.pad(recent[:, : len(self.mixed)] == 0, (1, 0))  # [users, 1 + mixed]
        shares = torch.where(lacks, -torch.inf, self.shares(last_states)).softmax(1)
        mixture = logits.softmax(1) * shares[:, :1]
        for place, ask in enumerate(self.mixed):
            mixture = mixture + (ask(vectors[:, place]) @ self.leaves).softmax(1) * shares[:, place + 1, None]
        return mixture.clamp(min=SMALLEST).log()


class PairScores(nn.Module):
    """Adds the learned numbers of transitions to logits `[users, leaves]`, see [`ItemTransitions.add_gains`]."""

    def __init__(self, gains: PairGains, leaves: Tensor, trie: CodeTrie):
        super().__init__()  # leaves [n_items + 1, num_transitions]
        self.register_buffer("rows", (leaves - len(trie.inner_counts)).clamp(min=0))
        self.register_buffer("gains", (gains.SCALE * gains.of_pairs).masked_fill(leaves < 0, 0))
        self.register_buffer("recency", gains.recency.unsqueeze(1))

    def forward(self, logits: Tensor, recent: Tensor) -> Tensor:
        recent = recent[:, : self.recency.shape[0]]
        gains = self.gains[recent] * self.recency  # [users, newest, num_transitions]
        return logits.scatter_add(1, self.rows[recent].flatten(1), gains.flatten(1))


class StepGraph(nn.Module):
    """A network that makes the decoder's step for one more code per beam; arguments as in [`HistoryGraph`]."""

    def __init__(self, model):
        super().__init__()
        self.decoder, self.has_start = Decoder(model), model.decoder.start_projection is not None
        length, attention = model.config.code_length, model.decoder.block[0].layer[0].SelfAttention
        back = attention.compute_bias(length, length)[0, :, -1].flip(1).T  # [steps back, heads]
        unseen = torch.full_like(back[:1], torch.finfo(torch.float32).min)
        self.register_buffer("bias", torch.cat([back, unseen]))

    def forward(self, tokens: Tensor, back: Tensor, level: Tensor, known: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reads the newest code of each beam.

        Args:
            tokens (`torch.LongTensor` of shape `(users, beams)`): token ids of the newest codes.
            back (`torch.LongTensor` of shape `(users, beams, n)`): number of steps since each of the n beams of all
                steps, this one included; `code_length` for those that aren't ancestors of the beam.
            level (`torch.LongTensor` of shape `(1,)`): level of the codes that follow.
            known (`dict[str, torch.FloatTensor]`): caches, `cross_bias` and possibly `start`, see [`HistoryGraph`].

        Returns:
            `log_p` `[users, beams, K]`, and the decoder's caches with these beams, under their names with `next_`
            before them.
        """
        hidden = self.decoder.tokens[tokens]
        if self.has_start:
            hidden = hidden + known["start"]
        bias = self.bias[back].permute(0, 3, 1, 2)  # [users, heads, beams, n]
        outputs: dict[str, Tensor] = {}
        for layer, block in enumerate(self.decoder.blocks):
            names = cache_names(layer)
            cross_keys, cross_values, keys, values = (known[name] for name in names)
            cross = cross_keys, cross_values
            hidden, *own = block.next(hidden, (keys, values), bias, cross, known["cross_bias"])
            outputs |= {f"next_{name}": cache for name, cache in zip(names[2:], own)}
        return outputs | {"log_p": self.decoder.log_p(self.decoder.norm(hidden), level)}


def cache_names(layer: int) -> tuple[str, str, str, str]:
    """Returns the names of a layer's keys and values: those of the history, then those of the beams."""
    return f"cross_keys_{layer}", f"cross_values_{layer}", f"keys_{layer}", f"values_{layer}"
