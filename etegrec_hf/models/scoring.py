"""Scoring of codes: those of targets, of candidates, of all targets of a sequence, and the next code."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput

from .beam_search import BeamDecoder, candidate_logits
from .code_distribution import CodeDistribution, terms_before, terms_of
from .histories import EncodedBatch
from .history_encoder import additive
from .item_logits import ItemEvidence
from .node_term import NodeTerm

# what transformers can record of a stack's layers, and its names in the output
ENCODER_RECORDS = {"hidden_states": "encoder_hidden_states", "attentions": "encoder_attentions"}
DECODER_RECORDS = {
    "hidden_states": "decoder_hidden_states",
    "attentions": "decoder_attentions",
    "cross_attentions": "cross_attentions",
}


@dataclass
class ETEGRecOutput(ModelOutput):
    """Output of [`ETEGRecForConditionalGeneration`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): code loss in nats per code, given `labels`, `candidates` or
            `sequence_labels`.
        item_loss (`torch.FloatTensor` of shape `()`): cross-entropy of the item logits alone over all items, divided
            by `code_length`, in nats. The number added for items of the history doesn't count. Given `labels` or
            `sequence_labels`, for models with item logits.
        logits (`torch.FloatTensor`): given `labels` of shape `(batch, code_length, codebook_size)`, each position
            scored against its own level's codes; given `candidates` or `sequence_labels` of shape
            `(batch, candidates or targets, code_length, codebook_size)`; otherwise, as `generate` reads them, of shape
            `(batch, decoded, vocab_size)`.
        sequence_latents (`torch.FloatTensor` of shape `(batch, d_model)`): mean of the encoder states, padding left
            out. Given `history_lengths`, this and the two next fields have the shape `(batch, targets, ...)`.
        sequence_projection (`torch.FloatTensor` of shape `(batch, latent_size)`): the same in the RQ-VAE's latent
            space, for models with an item tokenizer.
        preference_latents (`torch.FloatTensor` of shape `(batch, input_size)`): the decoder's first state in the space
            of semantic embeddings, for models with an item tokenizer.
        past_key_values (`EncoderDecoderCache`): the decoder's cache, if it was asked for.
        encoder_last_hidden_state (`torch.FloatTensor` of shape `(batch, positions, d_model)`): encoder states; a
            position is one token or one item.
        encoder_hidden_states, decoder_hidden_states (`tuple[torch.FloatTensor]`): input of each stack and states after
            each of its layers, as in T5; given `output_hidden_states`. All targets of a sequence are one row.
        encoder_attentions, decoder_attentions, cross_attentions (`tuple[torch.FloatTensor]`): attention weights of
            each layer, as in T5; given `output_attentions`.
    """

    loss: torch.FloatTensor | None = None
    item_loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    sequence_latents: torch.FloatTensor | None = None
    sequence_projection: torch.FloatTensor | None = None
    preference_latents: torch.FloatTensor | None = None
    past_key_values: object | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None
    encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    encoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    decoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    decoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


def score_targets(model, encoded: EncodedBatch, labels: torch.LongTensor, recorded: dict[str, bool]) -> ETEGRecOutput:
    """Scores one target per history, given its token ids `labels` `[B, L]`."""
    _check_labels("labels", labels, (len(encoded.states), model.config.code_length))
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    decoded = model.decoder(
        input_ids=torch.cat([start, labels[:, :-1]], dim=1),
        last_states=encoded.last_states(),
        encoder_hidden_states=encoded.states,
        encoder_attention_mask=model.decoder.cross_bias(encoded),
        use_cache=False,
        **recorded,
    )
    states = decoded.last_hidden_state  # [B, L, d]
    logits, rows = model.logits_by_level(states).unsqueeze(1), labels.unsqueeze(1)
    terms = terms_of(model, encoded, _dropout(model))
    item_loss = _item_loss(model, rows, terms)
    logits = _along(model, logits, rows, _of_codes(model, terms)).squeeze(1)  # [B, L, K]
    others = _other_outputs(model, encoded, encoded.mean_states(), states[:, 0]) | records_of(decoded, DECODER_RECORDS)
    return ETEGRecOutput(loss=_code_loss(model, logits, labels), item_loss=item_loss, logits=logits, **others)


def score_candidates(model, encoded: EncodedBatch, candidates: torch.LongTensor) -> ETEGRecOutput:
    """Scores several items per history, given their token ids `candidates` `[B, C, L]`."""
    _check_labels("candidates", candidates, (len(encoded.states), None, model.config.code_length))
    decoder = BeamDecoder(model, encoded)
    logits = candidate_logits(decoder, candidates)
    logits = _along(model, logits, candidates, terms_of(model, encoded))  # [B, C, L, K]
    others = _other_outputs(model, encoded, encoded.mean_states(), decoder.start_states[:, 0])
    return ETEGRecOutput(loss=_code_loss(model, logits, candidates), logits=logits, **others)


def score_sequences(
    model,
    encoded: EncodedBatch,
    history_lengths: torch.LongTensor | None,
    sequence_labels: torch.LongTensor | None,
    recorded: dict[str, bool],
) -> ETEGRecOutput:
    """Scores many targets per sequence, each after the first `history_lengths` `[B, T]` items of the sequence."""
    if history_lengths is None:
        raise ValueError(
            "`sequence_labels` are given without `history_lengths`; give the number of items before each target."
        )
    if model.config.encoder_attention != "causal":
        raise ValueError(
            f"`history_lengths` are given and `encoder_attention` is {model.config.encoder_attention!r}, so that "
            "every item would see the whole sequence, including the targets; build the model with 'causal'."
        )
    if sequence_labels is not None:
        _check_labels("sequence_labels", sequence_labels, (*history_lengths.shape, model.config.code_length))
    _check_lengths(model, encoded, history_lengths, sequence_labels)
    start = history_lengths.new_full((*history_lengths.shape, 1), model.config.decoder_start_token_id)
    codes = start[..., :0] if sequence_labels is None else sequence_labels[..., :-1]
    decoded = _decode_blocks(model, encoded, torch.cat([start, codes], dim=2), history_lengths, recorded)
    sizes = history_lengths.shape[1], 1 + codes.shape[2]
    states = decoded.last_hidden_state.unflatten(1, sizes)  # [B, T, 1 or L, d]
    sequence_latents = encoded.mean_states_before(history_lengths * model.config.code_length)
    others = _other_outputs(model, encoded, sequence_latents, states[:, :, 0]) | records_of(decoded, DECODER_RECORDS)
    if sequence_labels is None:
        return ETEGRecOutput(**others)
    logits = model.logits_by_level(states)  # [B, T, L, K]
    rows = sequence_labels.flatten(0, 1).unsqueeze(1)  # [B * T, 1, L]
    terms = terms_before(model, encoded, history_lengths, _dropout(model))
    item_loss = _item_loss(model, rows, terms)
    logits = _along(model, logits.flatten(0, 1).unsqueeze(1), rows, _of_codes(model, terms)).view_as(logits)
    loss = _code_loss(model, logits, sequence_labels)
    return ETEGRecOutput(loss=loss, item_loss=item_loss, logits=logits, **others)


def score_next_codes(
    model, encoded: EncodedBatch, decoder_input_ids: torch.LongTensor | None, options: dict
) -> ETEGRecOutput:
    """Scores the code after each of `decoder_input_ids` `[B, decoded]`, for `generate`; `options` go to T5."""
    if decoder_input_ids is None:
        start, device = model.config.decoder_start_token_id, encoded.states.device
        decoder_input_ids = torch.full((len(encoded.states), 1), start, device=device)
    decoded = model.decoder(
        input_ids=decoder_input_ids,
        last_states=encoded.last_states(),
        encoder_hidden_states=encoded.states,
        encoder_attention_mask=model.decoder.cross_bias(encoded),
        **options,
    )
    states = decoded.last_hidden_state
    return ETEGRecOutput(
        logits=model.code_logits(states, slice(0, model.config.vocab_size)),  # [B, decoded, vocab_size]
        past_key_values=decoded.past_key_values,
        **_other_outputs(model, encoded, encoded.mean_states(), states[:, 0]),
        **records_of(decoded, DECODER_RECORDS),
    )


def _dropout(model) -> float:
    """Returns the dropout rate of inputs of item logits: 0 outside training."""
    return model.config.dropout_rate if model.training else 0.0


def _check_labels(name: str, labels: torch.LongTensor, expected: tuple[int | None, ...]) -> None:
    """Raises a `ValueError` for token ids of another shape; None in `expected` allows any size."""
    sizes = zip(labels.shape, expected)
    if labels.ndim != len(expected) or any(size != wanted for size, wanted in sizes if wanted is not None):
        shape = ", ".join("n" if wanted is None else str(wanted) for wanted in expected)
        raise ValueError(
            f"`{name}` has shape {tuple(labels.shape)}; expected ({shape}). Give one target per history "
            "as `labels`, several as `candidates`, and targets of whole sequences as `sequence_labels`."
        )


def _check_lengths(
    model, encoded: EncodedBatch, history_lengths: torch.LongTensor, sequence_labels: torch.LongTensor | None
) -> None:
    """Raises a `ValueError` for sequences padded left, or a target that doesn't come after 1 to all items of its row.

    Targets of padding may have any length. One condition covers all errors, so that a device is waited for only once.
    """
    mask = encoded.positions_mask
    is_padded_left = (mask[:, 1:] > mask[:, :-1]).any(1)  # [B]
    items = (encoded.attention_mask > 0).sum(1, keepdim=True) // model.config.code_length  # [B, 1]
    is_beyond = (history_lengths < 1) | (history_lengths > items)  # [B, T]
    if sequence_labels is None:  # nothing tells which lengths are those of padding
        is_beyond = torch.zeros_like(is_beyond)
    else:
        is_beyond = is_beyond & (sequence_labels != model.config.pad_token_id).any(2)
    if not (is_padded_left.any() | is_beyond.any()):
        return
    if is_padded_left.any():
        row = is_padded_left.nonzero()[0].item()
        raise ValueError(
            f"row {row} of `attention_mask` has padding before an item, but `history_lengths` count from the row's "
            "first column; pad sequences on the right."
        )
    row, target = is_beyond.nonzero()[0].tolist()
    raise ValueError(
        f"`history_lengths` is {history_lengths[row, target].item()} for target {target} of row {row}, which has "
        f"{items[row].item()} items; give the number of items before the target, from 1 to all items of the row, or "
        "`sequence_labels` of 0 for no target."
    )


def _decode_blocks(
    model,
    encoded: EncodedBatch,
    decoder_input_ids: torch.LongTensor,
    history_lengths: torch.LongTensor,
    recorded: dict[str, bool],
) -> ModelOutput:
    """Returns the decoder's output, whose states have the shape `[B, targets * block, d]`.

    All targets of a sequence are one row of the decoder, in blocks that don't see each other.
    """
    block = decoder_input_ids.shape[2]
    own = torch.ones(block, block, dtype=torch.bool, device=history_lengths.device).tril()
    last_states = encoded.last_states_before(history_lengths * model.config.code_length)
    cross_bias = model.decoder.cross_bias_before(encoded, history_lengths)  # [B, heads, targets, positions]
    return model.decoder(
        input_ids=decoder_input_ids.flatten(1),
        last_states=last_states.repeat_interleave(block, dim=1),
        attention_mask=additive(own, encoded.states.dtype)[None, None],
        encoder_hidden_states=encoded.states,
        encoder_attention_mask=cross_bias.repeat_interleave(block, dim=2),
        use_cache=False,
        **recorded,
    )


def _other_outputs(
    model, encoded: EncodedBatch, sequence_latents: torch.Tensor, start_states: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns encoder states, and latents `[B, ...]` or `[B, targets, ...]`, by their names in the output."""
    outputs = {"sequence_latents": sequence_latents, "encoder_last_hidden_state": encoded.states}
    if model.config.has_item_tokenizer:
        outputs["sequence_projection"] = model.sequence_adapter(sequence_latents)
        outputs["preference_latents"] = model.preference_adapter(start_states)
    return outputs


def _along(model, logits: torch.Tensor, labels: torch.LongTensor, terms: list[NodeTerm]) -> torch.Tensor:
    """Returns logits `[rows, n, L, K]` along the paths of `labels` `[rows, n, L]`, with the rows' terms added.

    Without `constrained_softmax` logits are returned unchanged, and no trie is needed.
    """
    if not model.config.constrained_softmax:
        return logits
    trie = model.catalogue.trie
    return CodeDistribution(trie, trie, terms).along(logits, model.config.layout.codes(labels))


def _of_codes(model, terms: list[NodeTerm]) -> list[NodeTerm]:
    """Returns the terms for the code loss; detached item logits are included without a gradient."""
    if model.config.item_logits != "detached":
        return terms
    return [term.detached() if isinstance(term, ItemEvidence) else term for term in terms]


def _code_loss(model, logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
    """Returns the mean cross-entropy of logits `[..., L, K]` and token ids `[..., L]` in nats, without padding."""
    codes = model.config.layout.codes(labels).masked_fill(labels == model.config.pad_token_id, -100)
    return F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten())


def _item_loss(model, labels: torch.LongTensor, terms: list[NodeTerm]) -> torch.Tensor | None:
    """Returns the mean cross-entropy of items `labels` `[rows, n, L]` in each member's item logits, divided by L.

    Padding doesn't count. Without item logits, None is returned.
    """
    for term in terms:
        if isinstance(term, ItemEvidence):
            leaves = model.catalogue.trie.walk(model.config.layout.codes(labels))
            log_p, is_item = term.log_p(leaves).mean(0), leaves >= 0
            return -(log_p * is_item).sum() / (is_item.sum().clamp(min=1) * model.config.code_length)
    return None


def records_of(outputs: ModelOutput | tuple, names: dict[str, str]) -> dict[str, tuple]:
    """Returns what was recorded of a stack's layers, by its names in the output."""
    return {
        ours: outputs[name] for name, ours in names.items() if isinstance(outputs, ModelOutput) and name in outputs
    }
