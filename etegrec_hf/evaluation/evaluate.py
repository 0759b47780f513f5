"""Evaluation of a recommender on a split, compared with baselines."""

from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from ..data.checks import check_choice, check_positive
from ..data.prepared import PreparedDataset
from ..data.progress import WorkProgress
from ..data.splits import SPLIT_NAMES
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search_options import SearchOptions, SearchSettings
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .baselines import baseline_lists
from .memorisation import memorised_targets, metrics_by_part
from .metrics import (
    KS,
    confidence_intervals,
    metrics_of_systems,
    ranking_metrics,
    spread_metrics,
    target_ranks,
)
from .protocol import protocol_of
from .recommend_split import recommend_split
from .rounds import rounds_in_time
from .seen import seen_items

NUM_BEAMS = 50  # for a model whose own settings have no `num_beams`


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of [`evaluate`]. Search settings that are left out follow the model's own settings.

    Raises:
        ValueError: a number below 1.
        ValueError: a `split` that is neither validation nor test.
        ValueError: weights that [`SearchOptions`] refuses.
    """

    help_group: ClassVar[str] = "search"

    split: str = field(default="test", metadata={"help": "Split to evaluate on: validation or test."})
    num_beams: int | None = field(
        default=None,
        metadata={
            "help": "Width of the beam search; by default the model's own setting, or 50. Metrics of longer lists "
            "are left out."
        },
    )
    rerank_weight: float | None = field(
        default=None, metadata={"help": "Weight of re-ranking by preference latents; by default the model's own."}
    )
    transition_weight: float | None = field(
        default=None,
        metadata={"help": "Share of votes (counts of what came next), 0 to 1; by default the model's own."},
    )
    batch_size: int = field(default=64, metadata={"help": "Users per batch."})
    exclude_seen: bool | None = field(
        default=None,
        metadata={
            "help": "Whether to leave items that the user has seen out of the lists; by default the model's own "
            "setting `exclude_history`.",
            "nargs": "?",
            "const": True,
        },
    )
    bf16: bool = field(default=False, metadata={"help": "Decode under bfloat16 autocast."})

    def __post_init__(self):
        check_choice("split", self.split, SPLIT_NAMES[1:])
        check_positive("batch_size", self.batch_size)
        self._given(self.num_beams)  # raises for wrong values

    def settings(self, model: ETEGRecForConditionalGeneration) -> SearchSettings:
        """Returns the settings of the search: those given, and the model's own for the others.

        Raises:
            ValueError: a weight, given or the model's own, that needs a part which the model lacks.
        """
        num_beams = self.num_beams or model.config.search_settings.get("num_beams", NUM_BEAMS)
        return self._given(num_beams).for_model(model)

    def _given(self, num_beams: int | None) -> SearchOptions:
        return SearchOptions(1, num_beams, self.exclude_seen, self.rerank_weight, self.transition_weight)


@dataclass(frozen=True)
class Evaluation:
    """Results of [`evaluate`].

    Args:
        split (`str`): name of the split.
        metrics (`dict[str, float]`): metrics of the model, see [`ranking_metrics`].
        spread (`dict[str, float]`): coverage of the catalogue by the model's lists, see [`spread_metrics`]; empty for
            fewer than 10 beams.
        intervals (`dict[str, tuple[float, float]]`): confidence intervals of the metrics, see
            [`confidence_intervals`].
        baselines (`dict[str, dict[str, float]]`): metrics by baseline.
        parts (`dict[str, dict]`): metrics for users whose target came right after an item of their history in training
            (`memorisation`), and for the other users (`generalisation`), see [`metrics_by_part`].
        protocol (`dict`): description of how the metrics were measured, see [`protocol_of`].
        rerank_weight, transition_weight (`float`): weights of the search.
        ranks (`np.ndarray` of shape `(targets,)`): rank of each target, from 1; 0 for a target that isn't listed.
        baseline_ranks (`dict[str, np.ndarray]`): ranks by baseline.
        users_of_ranks (`np.ndarray` of shape `(targets,)`, *optional*): number of each target's user; by default each
            is of another user.
    """

    split: str
    metrics: dict[str, float]
    spread: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    baselines: dict[str, dict[str, float]]
    parts: dict[str, dict]
    protocol: dict[str, Any]
    rerank_weight: float
    transition_weight: float
    ranks: np.ndarray
    baseline_ranks: dict[str, np.ndarray]
    users_of_ranks: np.ndarray | None = None

    def figures(self) -> dict[str, Any]:
        """Returns all fields except the ranks, by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if not entry.name.endswith("ranks")}


def ranking_options(settings: SearchSettings) -> SearchOptions:
    """Returns the options for lists that metrics are computed from; the lists are at most `num_beams` long.

    `exclude_history` is off, as seen items are given to the search as excluded items.
    """
    listed = min(max(KS), settings.num_beams)
    return SearchOptions(listed, settings.num_beams, False, settings.rerank_weight, settings.transition_weight)


def evaluate(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: PreparedDataset,
    options: EvaluateOptions | None = None,
    collaborative_model: GPT2LMHeadModel | None = None,
    seconds: float | None = None,
) -> Evaluation:
    """Measures a recommender and baselines on a split.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer.
        data ([`PreparedDataset`]): a dataset whose items the model knows.
        options ([`EvaluateOptions`], *optional*): options; by default all have their defaults.
        collaborative_model (`GPT2LMHeadModel`, *optional*): a model trained on the same dataset, for the baseline
            SASRec.
        seconds (`float`, *optional*): time limit of the model's searches; baselines take their time after it. All
            figures are then of users who are drawn at random, as many as there is time for, but at least 64. The
            protocol says how many users they are.

    Raises:
        ValueError: the dataset has items that the model doesn't know.
    """
    options = options or EvaluateOptions()
    data = data.with_items(tokenizer.item_ids)
    split = data.split(options.split)
    settings = options.settings(model)
    exclude_seen = settings.exclude_history
    seen = seen_items(data, split) if exclude_seen else None
    measured, ranked_in_rounds = [], []
    with WorkProgress() as progress, torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16):
        advance = partial(progress.work_done, progress.begin("evaluating", len(split), "users"))
        for rows in rounds_in_time(len(split), seconds):
            of_rows = None if seen is None else seen[rows]
            found = recommend_split(
                model, split.take(rows), ranking_options(settings), options.batch_size, of_rows, advance
            )
            measured.append(rows)
            ranked_in_rounds.append(found)
    rows = np.concatenate(measured)
    ranked = np.concatenate(ranked_in_rounds)[np.argsort(rows)]
    split = split.take(np.sort(rows))
    data = replace(data, test=split) if options.split == "test" else replace(data, validation=split)
    users = np.unique(split.user_ids, return_inverse=True)[1]
    lists = baseline_lists(data, split, collaborative_model=collaborative_model, exclude_seen=exclude_seen)
    dtype = "bfloat16 autocast" if options.bf16 else str(model.dtype).removeprefix("torch.")
    return Evaluation(
        split=options.split,
        metrics=ranking_metrics(ranked, split.targets),
        spread=spread_metrics(ranked, data.item_counts),
        intervals=confidence_intervals(ranked, split.targets, users=users),
        baselines=metrics_of_systems(lists, split.targets),
        parts=metrics_by_part(memorised_targets(data, split), split.targets, lists, ranked),
        protocol=protocol_of(data, options.split, exclude_seen, num_beams=settings.num_beams, dtype=dtype),
        rerank_weight=settings.rerank_weight,
        transition_weight=settings.transition_weight,
        ranks=target_ranks(ranked, split.targets),
        baseline_ranks={name: target_ranks(listed, split.targets) for name, listed in lists.items()},
        users_of_ranks=users,
    )
