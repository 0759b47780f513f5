"""The batched code beam search behind `recommend`.

A user is encoded once. Cross-attention keys and values are computed once a user and read by all of the user's beams,
which ride the query axis; only the self-attention cache has a row a beam. The modules are those of the T5 decoder.
"""

import torch
from transformers import DynamicCache, EncoderDecoderCache

from .code_trie import CodeTrie


class BeamDecoder:
    """Runs a T5 decoder one code at a time over the beams of a batch of users.

    Args:
        decoder (`T5Stack`): the decoder in eval mode.
        encoder_states (`torch.FloatTensor` of shape `(users, tokens, d_model)`): encoded histories.
        attention_mask (`torch.LongTensor` of shape `(users, tokens)`): 0 on padding.
    """

    def __init__(self, decoder, encoder_states: torch.Tensor, attention_mask: torch.Tensor):
        self.decoder = decoder
        self.encoder_states = encoder_states
        lowest = torch.finfo(encoder_states.dtype).min
        self.cross_mask = torch.zeros(
            (len(encoder_states), 1, 1, encoder_states.shape[1]),
            dtype=encoder_states.dtype,
            device=encoder_states.device,
        ).masked_fill(attention_mask[:, None, None, :] == 0, lowest)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Decoder states `[users, beams, d_model]` after reading `tokens` `[users, beams]`."""
        users, beams = tokens.shape
        hidden = self.decoder.embed_tokens(tokens)  # [users, beams, d]
        self_bias = cross_bias = None
        for block in self.decoder.block:
            self_attention, cross_attention, feed_forward = block.layer
            hidden, self_bias, _ = self_attention(
                hidden.reshape(users * beams, 1, -1), position_bias=self_bias, past_key_values=self.cache
            )
            hidden, cross_bias, _ = cross_attention(
                hidden.reshape(users, beams, -1),
                key_value_states=self.encoder_states,
                attention_mask=self.cross_mask,
                position_bias=cross_bias,
                past_key_values=self.cache,
            )
            hidden = feed_forward(hidden)
        return self.decoder.final_layer_norm(hidden)

    def reorder(self, parent: torch.Tensor, beams: int) -> None:
        """Gives each new beam its parent's self-attention cache; `parent` is `[users, new beams]` in `0..beams-1`."""
        rows = parent + torch.arange(len(parent), device=parent.device).unsqueeze(1) * beams
        self.cache.self_attention_cache.reorder_cache(rows.flatten())


class Exclusion:
    """Items that some users must not get, as dead ends of the trie: a node dies when all of its items are excluded.

    Args:
        trie ([`CodeTrie`]): the catalogue.
        exclude (`torch.LongTensor` of shape `(users, n)`): item indices, padded with 0.
        codes (`torch.LongTensor` of shape `(n_items + 1, code_length)`): raw codes by item index.
    """

    def __init__(self, trie: CodeTrie, exclude: torch.Tensor, codes: torch.Tensor):
        exclude = exclude.sort(dim=1).values
        repeated = torch.zeros_like(exclude, dtype=torch.bool)
        repeated[:, 1:] = exclude[:, 1:] == exclude[:, :-1]
        self.codes = codes[exclude]  # [users, n, L]
        present = (exclude > 0) & (trie.item(trie.walk(self.codes)) == exclude) & ~repeated
        self.parent = torch.where(present, 0, -1)  # node of each excluded item at the current level
        self.trie = trie

    def forbidden(self, node: torch.Tensor, level: int) -> torch.Tensor:
        """Which codes below `node` `[users, beams]` lead to excluded items only: `[users, beams, K]`."""
        code = self.codes[:, :, level]
        child = self.trie.advance(self.parent, code)  # [users, n]
        together = ((child.unsqueeze(2) == child.unsqueeze(1)) & (child.unsqueeze(2) >= 0)).sum(2)
        dead = (child >= 0) & (together == self.trie.leaf_counts[child.clamp(min=0)])
        hit = (node.unsqueeze(2) == self.parent.unsqueeze(1)) & dead.unsqueeze(1)  # [users, beams, n]
        spare = self.trie.codebook_size
        mask = torch.zeros((*node.shape, spare + 1), dtype=torch.bool, device=node.device)
        mask.scatter_(2, torch.where(hit, code.unsqueeze(1), spare), True)
        self.parent = child
        return mask[..., :spare]


def code_beam_search(
    decoder: BeamDecoder,
    level_logits,
    trie: CodeTrie,
    num_beams: int,
    exclusion: Exclusion | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds each user's most probable items, level by level.

    Args:
        decoder ([`BeamDecoder`]): over the users' encoded histories.
        level_logits (`Callable`): decoder states and a level to logits over that level's K codes.
        trie ([`CodeTrie`]): the items that may be returned.
        num_beams (`int`): prefixes kept a level.
        exclusion ([`Exclusion`], *optional*): items that single users must not get.

    Returns:
        item indices `[users, found]` and log-probabilities `[users, found]` in float32, best first, where `found` is
        at most `num_beams`; index 0 and minus infinity where a user has fewer.
    """
    users, device = len(decoder.encoder_states), decoder.encoder_states.device
    tokens = torch.zeros((users, 1), dtype=torch.long, device=device)  # the decoder start
    node = torch.zeros_like(tokens)
    score = torch.zeros((users, 1), device=device)
    for level in range(trie.code_length):
        states = decoder.step(tokens)  # [users, beams, d]
        candidates = level_logits(states, level).float().log_softmax(-1)  # [users, beams, K]
        candidates = candidates.masked_fill(~trie.children(node, level), -torch.inf)
        if exclusion is not None:
            candidates = candidates.masked_fill(exclusion.forbidden(node, level), -torch.inf)
        candidates = (candidates + score.unsqueeze(2)).flatten(1)  # [users, beams * K]
        score, best = candidates.topk(min(num_beams, candidates.shape[1]), dim=1)
        parent, code = best // trie.codebook_size, best % trie.codebook_size
        node = trie.advance(node.gather(1, parent), code)
        node = node.masked_fill(score == -torch.inf, -1)
        if level + 1 < trie.code_length:
            decoder.reorder(parent, beams=tokens.shape[1])
            tokens = 1 + level * trie.codebook_size + code
    return trie.item(node), score
