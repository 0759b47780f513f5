"""Ranking by a causal model of item sequences: SASRec's task."""

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


def best_items(scores: torch.FloatTensor, listed: int) -> torch.LongTensor:
    """The items with the highest scores of `[batch, n_items + 1]`: `[batch, listed]`, 0 where there are no more."""
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
    """The best items for each row of a split.

    Args:
        model (`GPT2LMHeadModel`): in eval mode.
        split ([`Split`]): histories; its targets are not looked at.
        listed (`int`): items of a list.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].
        batch_size (`int`, *optional*, defaults to 256): rows at a time, of like length.

    Returns:
        `np.ndarray` `[rows, listed]` of item indices; 0 fills up, and stands for rows without a history.
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
    """The model that `etegrec embed --collaborative` saved, in eval mode.

    Raises:
        FileNotFoundError: there is none in the folder.
        ValueError: it was trained on other items than those of `data`.
    """
    path = Path(folder, ITEM_IDS)
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no collaborative model; make one with `etegrec embed`.")
    item_ids = json.loads(path.read_text(encoding="utf-8"))
    check_items(item_ids, data.item_ids, folder)
    return GPT2LMHeadModel.from_pretrained(folder).eval()


def check_items(trained: list[str], item_ids: list[str], folder: str | Path) -> None:
    """Raises a `ValueError` if the model in `folder` was trained on other items, or on the same in another order."""
    if trained != item_ids:
        same = sorted(trained) == sorted(item_ids)
        what = "the same in another order" if same else f"{len(trained)} others"
        raise ValueError(
            f"the collaborative model in {str(folder)!r} was not trained on this dataset's {len(item_ids)} items, but "
            f"on {what}; train one on this dataset."
        )
