"""Ranked items for a whole split."""

import numpy as np
import scipy.sparse
import torch

from ..data.prepared import Split
from ..data.sequences import SequenceDataset
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from .seen import padded_rows


def recommend_split(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    top_k: int = 50,
    num_beams: int = 50,
    batch_size: int = 64,
    seen: scipy.sparse.csr_matrix | None = None,
) -> np.ndarray:
    """Recommends for each row of a split, batched by length.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): in eval mode.
        split ([`Split`]): histories; its targets are not looked at.
        top_k, num_beams (`int`, *optional*, default to 50): as in `model.recommend`.
        batch_size (`int`, *optional*, defaults to 64): users at a time.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].

    Returns:
        `np.ndarray` `[rows, top_k]` of item indices in the order of the split's rows. A row without a history keeps 0.
    """
    dataset = SequenceDataset(split, model.config.max_history, every_position=False)
    ranked = np.zeros((len(split), top_k), dtype=np.int64)
    for start in range(0, len(dataset), batch_size):
        chosen = list(range(start, min(start + batch_size, len(dataset))))
        rows = dataset.rows[chosen]
        history = dataset.__getitems__(chosen)["history"].to(model.device)
        exclude = None if seen is None else torch.from_numpy(padded_rows(seen[rows])).to(model.device)
        items, _ = model.recommend(
            **model.inputs_from_items(history), top_k=top_k, num_beams=num_beams, exclude=exclude
        )
        ranked[rows] = items.cpu().numpy()
    return ranked
