"""Ranking by a causal model of item sequences: SASRec's task."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from ..data.prepared import PreparedDataset, Split
from ..data.sequences import SequenceDataset

ITEM_IDS = "item_ids.json"


@torch.no_grad()
def next_item_scores(model: GPT2LMHeadModel, history: torch.LongTensor) -> torch.FloatTensor:
    """Scores of all items for coming next.

    Args:
        model (`GPT2LMHeadModel`): over item indices, 0 for padding.
        history (`torch.LongTensor` of shape `(batch, items)`): padded right with 0, with at least one item each.

    Returns:
        `torch.FloatTensor` of shape `(batch, n_items + 1)`: logits, minus infinity for padding.
    """
    # attention is causal and padding stands right, so that no item sees it
    hidden = model.transformer(history).last_hidden_state  # [B, T, width]
    last = (history > 0).sum(1) - 1
    scores = model.lm_head(hidden[torch.arange(len(history), device=history.device), last]).float()
    scores[:, 0] = -torch.inf
    return scores


def rank_split(
    model: GPT2LMHeadModel, split: Split, listed: int, exclude_seen: bool = False, batch_size: int = 256
) -> np.ndarray:
    """The best items for each row of a split.

    Args:
        model (`GPT2LMHeadModel`): in eval mode.
        split ([`Split`]): histories; its targets are not looked at.
        listed (`int`): items of a list.
        exclude_seen (`bool`, *optional*, defaults to `False`): whether items of the history are left out.
        batch_size (`int`, *optional*, defaults to 256): rows at a time, of like length.

    Returns:
        `np.ndarray` `[rows, listed]` of item indices; 0 fills up, and stands for rows without a history.
    """
    dataset = SequenceDataset(split, model.config.n_positions, every_position=False)
    ranked = np.zeros((len(split), listed), dtype=np.int64)
    for start in range(0, len(dataset), batch_size):
        chosen = list(range(start, min(start + batch_size, len(dataset))))
        history = dataset.__getitems__(chosen)["history"].to(model.device)
        scores = next_item_scores(model, history)
        if exclude_seen:
            scores.scatter_(1, history, -torch.inf)
        best = scores.topk(listed)
        items = torch.where(best.values > -torch.inf, best.indices, 0)
        ranked[dataset.rows[chosen]] = items.cpu().numpy()
    return ranked


def load_collaborative_model(folder: str | Path, data: PreparedDataset) -> GPT2LMHeadModel:
    """The model that `etegrec embed --collaborative` saved, in eval mode.

    Raises:
        FileNotFoundError: there is none in the folder.
        ValueError: it was trained on other items than those of `data`.
    """
    path = Path(folder, ITEM_IDS)
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no collaborative model; make one with `etegrec embed`.")
    item_ids = json.loads(path.read_text(encoding="utf-8"))
    if item_ids != data.item_ids:
        raise ValueError(
            f"the collaborative model in {str(folder)!r} was trained on {len(item_ids)} items, other ones than the "
            f"{data.n_items} of this dataset; train one on it."
        )
    return GPT2LMHeadModel.from_pretrained(folder).eval()
