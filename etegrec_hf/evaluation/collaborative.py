"""Ranking by a causal model of item sequences, as in SASRec."""

import json
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from ..data.prepared import PreparedDataset, Split
from ..data.sequences import SequenceDataset
from .seen import padded_rows

ITEM_IDS = "item_ids.json"


@torch.no_grad()
def next_item_scores(model: GPT2LMHeadModel, history: torch.LongTensor) -> torch.FloatTensor:
    """Returns the scores of all items as the next item of histories.

    Args:
        model (`GPT2LMHeadModel`): a model of item indices, in which 0 is padding.
        history (`torch.LongTensor` of shape `(batch, items)`): item indices, padded right with 0, at least one item
            per row.

    Returns:
        `torch.FloatTensor` of shape `(batch, n_items + 1)`: logits; -inf for index 0.
    """
    # attention is causal and padding is on the right, so that no item sees padding
    hidden = model.transformer(history).last_hidden_state  # [B, T, width]
    last = (history > 0).sum(1) - 1
    scores = model.lm_head(hidden[torch.arange(len(history), device=history.device), last]).float()
    scores[:, 0] = -torch.inf
    return scores


def best_items(scores: torch.FloatTensor, listed: int) -> torch.LongTensor:
    """Returns the items with the highest scores, given scores `[batch, n_items + 1]` by item index.

    Returns:
        `torch.LongTensor` of shape `(batch, listed)`: item indices; shorter lists are padded with 0.
    """
    best = scores.topk(min(listed, scores.shape[1]))
    items = torch.where(best.values > -torch.inf, best.indices, 0)
    return F.pad(items, (0, listed - items.shape[1]))


def rank_split(
    model: GPT2LMHeadModel,
    split: Split,
    listed: int,
    seen: scipy.sparse.csr_matrix | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Returns the best items for each row of a split.

    Args:
        model (`GPT2LMHeadModel`): a model in eval mode.
        split ([`Split`]): histories; its targets aren't read.
        listed (`int`): items per list.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].
        batch_size (`int`, *optional*, defaults to 256): rows per batch, which have similar lengths.

    Returns:
        `np.ndarray` of shape `(rows, listed)`: item indices; shorter lists are padded with 0, and rows without a
        history are 0.
    """
    dataset = SequenceDataset.for_evaluation(split, model.config.n_positions)
    ranked = np.zeros((len(split), listed), dtype=np.int64)
    for start in range(0, len(dataset), batch_size):
        chosen = list(range(start, min(start + batch_size, len(dataset))))
        rows = dataset.rows[chosen]
        scores = next_item_scores(model, dataset.__getitems__(chosen)["history"].to(model.device))
        if seen is not None:
            scores.scatter_(1, torch.from_numpy(padded_rows(seen[rows])).to(model.device), -torch.inf)
        ranked[rows] = best_items(scores, listed).cpu().numpy()
    return ranked


def load_collaborative_model(folder: str | Path, data: PreparedDataset) -> GPT2LMHeadModel:
    """Loads the model that `etegrec embed --collaborative` saved, in eval mode.

    Raises:
        FileNotFoundError: the folder holds no such model.
        ValueError: the model was trained on other items than those of `data`.
    """
    path = Path(folder, ITEM_IDS)
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no collaborative model; make one with `etegrec embed`.")
    item_ids = json.loads(path.read_text(encoding="utf-8"))
    check_items(item_ids, data.item_ids, folder)
    return GPT2LMHeadModel.from_pretrained(folder).eval()


def check_items(trained: list[str], item_ids: list[str], folder: str | Path) -> None:
    """Raises a `ValueError` if the model in `folder` was trained on other items, or in another order of items."""
    if trained != item_ids:
        same = sorted(trained) == sorted(item_ids)
        what = "the same items in another order" if same else f"{len(trained)} other items"
        raise ValueError(
            f"the collaborative model in {str(folder)!r} was not trained on this dataset's {len(item_ids)} items, but "
            f"on {what}; train one on this dataset."
        )
