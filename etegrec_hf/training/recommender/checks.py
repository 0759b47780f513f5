"""What a trainer needs of a model before it begins."""

import torch

from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from .arguments import ETEGRecTrainingArguments

MOST_SCORED_ITEMS = 200_000  # item logits of a thousand targets are a gigabyte then; see benchmarks/item_logits.py


def check_item_logits(model: ETEGRecForConditionalGeneration, item_weight: float) -> None:
    """Checks that item logits can be trained.

    Raises:
        ValueError: more items than can all be scored for each target of a batch.
        ValueError: detached item logits, without the loss that trains them.
    """
    n_items = model.config.n_items
    if model.config.item_logits == "detached" and not item_weight:
        raise ValueError(
            "`item_weight` is 0 and the model's `item_logits` 'detached', so that nothing would train them; give it a "
            "weight, or build the model with `item_logits` 'exact'."
        )
    if model.item_logits is not None and n_items > MOST_SCORED_ITEMS:
        raise ValueError(
            f"`item_logits` is {model.config.item_logits!r} and the model has {n_items} items, all of which would be "
            f"scored for each target; up to {MOST_SCORED_ITEMS} that was measured to be affordable. Build it with "
            "`item_logits` 'none' and `recent_items` 0."
        )


def check_embeddings(
    model: ETEGRecForConditionalGeneration,
    args: ETEGRecTrainingArguments,
    semantic_embedding: torch.FloatTensor | None,
) -> None:
    """Checks that there is what the losses need, once: in the model or beside it.

    Raises:
        ValueError: no item tokenizer, or no embeddings, where a loss needs them.
        ValueError: `semantic_embedding` beside those of the model, of another shape or with NaN.
    """
    aligns = args.phase(0) == "tokenizer" or args.sia_weight > 0 or args.psa_weight > 0
    if model.item_tokenizer is None and aligns:
        raise ValueError(
            "the model holds no item tokenizer (`has_item_tokenizer` is False), so there is nothing to alternate "
            "with or align to; finetune it instead, with `sia_weight` and `psa_weight` 0."
        )
    if semantic_embedding is not None:
        if model.catalogue.semantic_embedding is not None:
            raise ValueError(
                "`semantic_embedding` is given and the model holds some too; leave it out, or make the model with "
                "`has_semantic_embedding=False`."
            )
        model.catalogue.check_embeddings(semantic_embedding)
    elif model.catalogue.semantic_embedding is None and aligns:
        raise ValueError(
            "the model holds no `semantic_embedding`, which alternating training and alignment need; load one "
            "that does, or give them to the trainer."
        )
