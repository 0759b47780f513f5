"""Ranked items for a whole split."""

import numpy as np

from ..data.prepared import Split
from ..data.sequences import SequenceDataset
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration


def recommend_split(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    top_k: int = 50,
    num_beams: int = 50,
    batch_size: int = 64,
    exclude_seen: bool = False,
) -> np.ndarray:
    """Recommends for each row of a split, batched by length.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): in eval mode.
        split ([`Split`]): histories; its targets are not looked at.
        top_k, num_beams (`int`, *optional*, default to 50): as in `model.recommend`.
        batch_size (`int`, *optional*, defaults to 64): users at a time.
        exclude_seen (`bool`, *optional*, defaults to `False`): whether items of the history are left out.

    Returns:
        `np.ndarray` `[rows, top_k]` of item indices in the order of the split's rows. A row without a history keeps 0.
    """
    dataset = SequenceDataset(split, model.config.max_history, every_position=False)
    ranked = np.zeros((len(split), top_k), dtype=np.int64)
    for start in range(0, len(dataset), batch_size):
        chosen = list(range(start, min(start + batch_size, len(dataset))))
        history = dataset.__getitems__(chosen)["history"].to(model.device)
        items, _ = model.recommend(
            **model.inputs_from_items(history), top_k=top_k, num_beams=num_beams, exclude_history=exclude_seen
        )
        ranked[dataset.rows[chosen]] = items.cpu().numpy()
    return ranked
