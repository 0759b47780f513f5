"""A causal model of item sequences, and its item embeddings."""

import numpy as np
from transformers import GPT2Config, GPT2LMHeadModel

from ...data.prepared import PreparedDataset
from .arguments import CollaborativeSizes


def build_collaborative_model(n_items: int, sizes: CollaborativeSizes) -> GPT2LMHeadModel:
    """Builds GPT-2's decoder over item indices, with SASRec's narrow feed-forward layers and tied embeddings."""
    dropout, of_attention = sizes.dropout_rate, sizes.attention_dropout_rate
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=n_items + 1,
            n_positions=sizes.max_history,
            n_embd=sizes.width,
            n_layer=sizes.num_layers,
            n_head=sizes.num_heads,
            n_inner=sizes.width,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout if of_attention is None else of_attention,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def collaborative_embedding(model: GPT2LMHeadModel, data: PreparedDataset) -> np.ndarray:
    """Returns the item embeddings of a trained model, `[n_items, width]` of `float32`.

    Items that aren't in training sequences have embeddings of 0, because the model learned nothing about them.
    """
    values = model.get_input_embeddings().weight.detach().float().cpu().numpy()[1:].copy()
    is_trained = data.item_counts[1:] > 0
    values[~is_trained] = 0
    return values
