"""Checks of a model before a trainer begins."""

import torch
from transformers.utils import logging

from ...data.sequences import SequenceDataset, WholeSequenceDataset
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from .arguments import ETEGRecTrainingArguments

logger = logging.get_logger(__name__)

MOST_SCORED_ITEMS = 200_000  # item logits of a thousand targets are a gigabyte then; see benchmarks/item_logits.py


def check_item_logits(model: ETEGRecForConditionalGeneration, item_weight: float) -> None:
    """Checks that item logits can be trained.

    Raises:
        ValueError: there are more items than can be scored for each target.
        ValueError: item logits are detached, but `item_weight` is 0.
    """
    n_items = model.config.n_items
    if model.config.item_logits == "detached" and not item_weight:
        raise ValueError(
            "`item_weight` is 0 and the model's `item_logits` is 'detached', so nothing would train the item logits; "
            "give a weight above 0, or build the model with `item_logits` 'exact'."
        )
    if model.item_logits is not None and n_items > MOST_SCORED_ITEMS:
        raise ValueError(
            f"`item_logits` is {model.config.item_logits!r} and the model has {n_items} items, but training scores "
            f"all items for each target, which takes too much memory above {MOST_SCORED_ITEMS} items. Build the model "
            "with `item_logits` 'none' and `recent_items` 0."
        )


def check_order_noise(train_dataset: object, order_noise: float) -> None:
    """Raises a `ValueError` if the training samples have another order noise than the arguments, which don't set it.

    Streamed samples are made as they are read, and aren't checked.
    """
    if isinstance(train_dataset, SequenceDataset | WholeSequenceDataset):
        own = getattr(train_dataset, "order_noise", 0.0)
        if own != order_noise:
            raise ValueError(
                f"`order_noise` is {order_noise}, but that of `train_dataset` is {own}; give the same number to the "
                "arguments and to `WholeSequenceDataset`."
            )


def check_embeddings(
    model: ETEGRecForConditionalGeneration,
    args: ETEGRecTrainingArguments,
    semantic_embedding: torch.FloatTensor | None,
) -> None:
    """Checks that item tokenizer and embeddings exist if a loss needs them.

    The embeddings are either in the model or given as `semantic_embedding`.

    Raises:
        ValueError: a loss needs an item tokenizer or embeddings, and there are none.
        ValueError: `semantic_embedding` is given, and the model holds embeddings too.
        ValueError: `semantic_embedding` has another shape, or holds NaN.
    """
    aligns = args.phase(0) == "tokenizer" or args.sia_weight > 0 or args.psa_weight > 0
    if model.item_tokenizer is None and aligns:
        raise ValueError(
            "the model holds no item tokenizer (`has_item_tokenizer` is False), which alternating training and "
            "alignment need; finetune the model instead, with `sia_weight` and `psa_weight` 0."
        )
    if semantic_embedding is not None:
        if model.catalogue.semantic_embedding is not None:
            raise ValueError(
                "`semantic_embedding` is given, but the model holds embeddings already; leave `semantic_embedding` "
                "out, or make the model with `has_semantic_embedding=False`."
            )
        model.catalogue.check_embeddings(semantic_embedding)
    elif model.catalogue.semantic_embedding is None and aligns:
        raise ValueError(
            "the model holds no `semantic_embedding`, which alternating training and alignment need; load a model "
            "with embeddings, or give `semantic_embedding` to the trainer."
        )


def check_warm_epochs(args: ETEGRecTrainingArguments, n_epochs: int) -> None:
    """Warns if training ends before its alignment losses begin.

    Args:
        args ([`ETEGRecTrainingArguments`]): arguments with weights of alignment losses.
        n_epochs (`int`): epochs of the training; a last epoch that ends early counts.
    """
    weights = [f"`{name}` {getattr(args, name):g}" for name in ("sia_weight", "psa_weight") if getattr(args, name) > 0]
    if weights and args.warm_epochs >= n_epochs:
        logger.warning(
            f"`warm_epochs` is {args.warm_epochs}, but the number of epochs is {n_epochs}, so training ends before "
            f"its alignment losses begin ({', '.join(weights)}). Give `num_train_epochs` above {args.warm_epochs} "
            "or fewer `warm_epochs`, or set these weights to 0 to train without alignment."
        )
