"""Alternating training and finetuning of the recommender."""

import math
from collections import defaultdict
from functools import cached_property

import torch
from torch.utils.data import DataLoader
from transformers import set_seed
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.training_args import OptimizerNames

from ...data.sequences import LengthGroupedSampler, SequenceDataset, TokenBudgetBatches, WholeSequenceDataset, as_batch
from ...data.streamed_sequences import StreamedBatches, StreamedSequences
from ...evaluation.metrics import KS, rank
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.search_options import BY_CODES_ALONE
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.arguments import order_seed, seed_after
from ..base.callbacks import EarlyStoppingCallback, EpochBorderCallback
from ..base.freezing import freeze, thaw
from ..base.refusals import REFUSED_ARGUMENTS, check_dataset
from ..base.trainer import BaseTrainer
from ..item_tokenizer.trainer import RQVAETrainer
from .arguments import ETEGRecTrainingArguments, FinetuningArguments
from .batches import loader_of, make_own_batches
from .callbacks import AlternatingPhaseCallback, CodeRefreshCallback
from .cheap_dropout import cheapen_dropout
from .checks import check_embeddings, check_item_logits, check_order_noise
from .phase_losses import PhaseLosses
from .processes import average_gradients, start_alike
from .schedule import PhaseScheduler, phase_scheduler
from .target_batch import TargetBatch

CHOOSES_WEIGHTS = {"params", "model", "optimizer_dict"}  # options of optimizers that take no groups


class ETEGRecTrainer(BaseTrainer):
    """Trains a recommender and its item tokenizer in turns, or finetunes the recommender.

    Besides the methods that [`BaseTrainer`] overrides, it overrides these methods of transformers' Trainer:

    - `_get_train_sampler`, `get_train_dataloader`, `num_examples`: batches hold histories of similar length, so there
      is little padding. Batches of `max_tokens_per_batch` and of [`StreamedSequences`] are made by this package.
    - `_prepare_for_training`, `training_step`: processes start from the same model and update it by the mean of their
      gradients. DDP isn't used: it averages the same weights in each step, after a `forward` of the whole model. Here
      item tokenizer and recommender take turns, and the tokenizer phase calls only the RQ-VAE.
    - `compute_loss`, `_get_num_items_in_batch`: the loss is a weighted sum of named losses, which depend on the phase.
      Each target has the same weight.
    - `_get_grad_norm`, `log`: gradient norms and losses are logged by name.
    - `create_optimizer`, `create_scheduler`: item tokenizer and recommender are two parameter groups, and the schedule
      of each advances in its own phase.
    - `prediction_step`: evaluation ranks items.
    - `_save`: the tokenizer is saved with the current codes.

    Callbacks freeze weights and compute codes again.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model, with codes, and with semantic embeddings unless
            `semantic_embedding` is given.
        args ([`ETEGRecTrainingArguments`]): arguments; [`FinetuningArguments`] for finetuning.
        item_ids (`list[str]`): ids in the order of item indices.
        train_dataset ([`SequenceDataset`] or [`WholeSequenceDataset`]): training samples. Every position is a target.
            A `SequenceDataset` has one history per target. A `WholeSequenceDataset` has all targets of a sequence in
            one pass, which needs a causal encoder. [`StreamedSequences`] make either of them from files.
        item_titles (`dict[str, str]`, *optional*): titles by item id, saved with the tokenizer.
        semantic_embedding (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): embeddings, if the model
            holds none. They may be mapped from disk: only the rows of a batch's targets are read. Checkpoints don't
            hold them.
        **kwargs: further arguments of [`BaseTrainer`]: `record`, `eval_dataset` (a [`SequenceDataset`] of last
            positions, or several by name), `callbacks`, ... To train without `eval_dataset`, set `eval_strategy="no"`,
            `load_best_model_at_end=False` and `early_stopping_patience=None` in `args`.

    Raises:
        ValueError: the model, the arguments or a dataset are of another kind.
        ValueError: a refused argument of `Trainer` is given.
        ValueError: the number of ids isn't the number of the model's items.
        ValueError: the model has item logits of more than 200,000 items, or detached ones without `item_weight`.
        ValueError: the samples have another order noise than the arguments.
        ValueError: there are no embeddings to train the item tokenizer with.
        ValueError: `semantic_embedding` is given, and the model holds embeddings too.
        ValueError: `semantic_embedding` has another shape, or holds NaN.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` scales it by the batch's share of the update's targets
    unit = "targets"
    model_class = ETEGRecForConditionalGeneration
    args_class = ETEGRecTrainingArguments
    evaluated = (SequenceDataset,)
    refused_arguments = REFUSED_ARGUMENTS | {
        "processing_class": "it makes the tokenizer from the model's codes and `item_ids`"
    }

    def __init__(
        self,
        model: ETEGRecForConditionalGeneration,
        args: ETEGRecTrainingArguments,
        item_ids: list[str],
        train_dataset: SequenceDataset | WholeSequenceDataset | StreamedSequences,
        *,
        item_titles: dict[str, str] | None = None,
        semantic_embedding: torch.FloatTensor | None = None,
        **kwargs,
    ):
        kwargs = self.checked(model, args, kwargs)
        if len(item_ids) != model.config.n_items:
            raise ValueError(
                f"data and model disagree: `item_ids` holds {len(item_ids)} items and the model "
                f"{model.config.n_items}; "
                "use the dataset that the model was made for."
            )
        check_embeddings(model, args, semantic_embedding)
        check_item_logits(model, args.item_weight)
        check_dataset("train_dataset", train_dataset, (SequenceDataset, WholeSequenceDataset, StreamedSequences))
        check_order_noise(train_dataset, args.order_noise)
        self.item_ids, self.item_titles = item_ids, item_titles
        self.semantic_embedding = semantic_embedding
        self.phase_losses = PhaseLosses(args, semantic_embedding)
        self.stage = args.stage
        self.phase, self.aligned = "finetune", False
        self._resting: list[torch.nn.Parameter] = []  # weights that are frozen in this phase, to be thawed after it
        self.optimizer: torch.optim.Optimizer | None
        self.lr_scheduler: PhaseScheduler | None
        self._parts: dict[str, list] = defaultdict(lambda: [0.0, 0])
        if args.device.type == "cpu":
            for stack in (model.encoder, model.decoder):
                cheapen_dropout(stack)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            data_collator=as_batch,
            compute_metrics=rank,
            processing_class=self.item_id_tokenizer(model),
            **kwargs,
        )
        recorded = sum(stage["stage"] != RQVAETrainer.stage for stage in self.record.stages)
        self.earlier_trainings = max(recorded, isinstance(args, FinetuningArguments))
        set_seed(seed_after(args.seed, self.earlier_trainings))
        self.add_callback(EpochBorderCallback())
        self.add_callback(CodeRefreshCallback(self))
        self.add_callback(AlternatingPhaseCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def item_id_tokenizer(self, model: ETEGRecForConditionalGeneration) -> ETEGRecTokenizer:
        """Returns a tokenizer with the model's current codes."""
        config = model.config
        return ETEGRecTokenizer.from_item_codes(
            self.item_ids,
            model.catalogue.item_codes,
            config.codebook_size,
            max_history=config.max_history,
            item_titles=self.item_titles,
        )

    @property
    def progress_title(self) -> str:
        """Returns the title of the progress display: the phase in alternating training, else the stage."""
        return self.stage if self.phase == "finetune" else f"{self.phase} phase"

    @property
    def may_end(self) -> bool:
        """Returns whether training may end now; in a tokenizer phase, the recommender hasn't learned the codes yet."""
        return self.phase != "tokenizer"

    def samples_per_epoch(self) -> int:
        """Returns the number of targets per epoch, also for whole sequences."""
        return self.train_dataset.n_targets

    # Batches and processes

    def _get_train_sampler(self, train_dataset=None) -> LengthGroupedSampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, self.batch_seed)

    @property
    def batch_seed(self) -> int:
        """Returns the random seed of the order in which samples are read, another one than the training before had."""
        return seed_after(order_seed(self.args), self.earlier_trainings)

    @cached_property
    def own_batches(self) -> StreamedBatches | TokenBudgetBatches | None:
        """Returns this process's training batches if Trainer can't make them, else `None`."""
        return make_own_batches(self.train_dataset, self.args, self.model.config.code_length, self.batch_seed)

    def get_train_dataloader(self) -> DataLoader:
        """Returns a loader of batches of a number of samples, or of `max_tokens_per_batch`, from memory or files."""
        if self.own_batches is None:
            return super().get_train_dataloader()
        return loader_of(self.train_dataset, self.own_batches, self.args)

    def num_examples(self, dataloader: DataLoader) -> int:
        """Returns the number of samples, also for loaders of ready batches."""
        return len(self.train_dataset) if dataloader.dataset is self.own_batches else super().num_examples(dataloader)

    def batches_per_epoch(self) -> int:
        """Returns the number of batches per epoch and process."""
        if self.own_batches is not None:
            return len(self.own_batches)
        batches = len(self.train_dataset) / (self.args.train_batch_size * self.args.world_size)
        return math.floor(batches) if self.args.dataloader_drop_last else math.ceil(batches)

    def _prepare_for_training(self, *args, **kwargs):
        # accelerate doesn't wrap a model in DDP if the model was already prepared for evaluation
        self.accelerator.prepare_model(self.model, evaluation_mode=True)
        prepared = super()._prepare_for_training(*args, **kwargs)
        start_alike(self.model)
        return prepared

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Computes gradients of a batch, and averages the gradients of all processes at the end of an update."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            average_gradients(self.accelerator, self.model.parameters())
        return loss

    # Phases

    def train(self, *args, **kwargs):
        """Trains. At the end, only weights that the caller froze are frozen.

        Raises:
            ValueError: the caller has frozen all weights of the item tokenizer or recommender that is to be trained.
        """
        self._end_phase()
        recommender, tokenizer = self._sides()
        sides = {"recommender": recommender} | (
            {"item tokenizer": tokenizer} if self.args.phase(0) == "tokenizer" else {}
        )
        for side, weights in sides.items():
            if not any(weight.requires_grad for weight in weights):
                raise ValueError(
                    f"every weight of the {side} is frozen (`requires_grad` is False), so its phase would train "
                    "nothing; set `requires_grad_(True)` of the weights to train. `freeze_tokenizer` trains only the "
                    "recommender."
                )
        try:
            return super().train(*args, **kwargs)
        finally:
            self._end_phase()

    def enter_phase(self, phase: str, aligned: bool) -> None:
        """Freezes the weights that `phase` doesn't train. Weights that the caller froze stay frozen in any phase.

        Args:
            phase (`str`): `"tokenizer"`, `"recommender"` or `"finetune"`.
            aligned (`bool`): whether the alignment losses SIA and PSA are part of the loss.
        """
        self._end_phase()
        self.phase, self.aligned = phase, aligned
        recommender, tokenizer = self._sides()
        self._resting = freeze(recommender if phase == "tokenizer" else tokenizer)

    def _end_phase(self) -> None:
        thaw(self._resting)
        self._resting = []

    def _sides(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """Returns the weights of the recommender without its item tokenizer, and those of the item tokenizer."""
        item_tokenizer = self.model.item_tokenizer
        tokenizer = [] if item_tokenizer is None else list(item_tokenizer.parameters())
        own = {id(weight) for weight in tokenizer}
        return [weight for weight in self.model.parameters() if id(weight) not in own], tokenizer

    # Losses

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """Returns the weighted sum of the phase's losses. Each loss is logged by its name."""
        core, batch = self.accelerator.unwrap_model(model), TargetBatch.of(inputs)
        trains_tokenizer = self.phase == "tokenizer"
        core.train(not trains_tokenizer)  # dropout only in the part that is trained
        if core.item_tokenizer is not None:
            core.item_tokenizer.train(trains_tokenizer)
        weights = {
            "vq": self.args.vq_weight * trains_tokenizer,
            "code": self.args.code_weight * (not trains_tokenizer),
            "item": self.args.item_weight * (not trains_tokenizer and core.item_logits is not None),
            "sia": self.args.sia_weight * self.aligned,
            "psa": self.args.psa_weight * self.aligned,
        }
        weights = {name: weight for name, weight in weights.items() if weight > 0}
        if not weights:
            raise ValueError(
                f"every loss of the {self.phase} phase has weight 0: `vq_weight` or `code_weight` is 0, and alignment "
                "losses have weight 0 until `warm_epochs` have passed; give one of them a weight."
            )
        if trains_tokenizer:
            parts, outputs = self.phase_losses.of_tokenizer(core, batch, weights), None
        else:
            parts, outputs = self.phase_losses.of_recommender(model, core, batch, weights)
        for name, part in parts.items():
            self.log_part(f"loss_{name}", part.detach())
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        if num_items_in_batch is not None:  # in an update, targets of all batches and processes have the same weight
            loss = loss * len(batch.targets) * self.args.world_size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        """Returns the number of targets in all batches and processes of an update."""
        targets = sum(len(TargetBatch.of(inputs).targets) for inputs in batch_samples)
        return self.accelerator.reduce(torch.tensor(float(targets), device=device), "sum")

    def _get_grad_norm(self, model, grad_norm=None):
        """Returns Trainer's gradient norm before clipping, and logs it under the name of the trained part too."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        side = "item_tokenizer" if self.phase == "tokenizer" else "recommender"
        self.log_part(f"grad_norm_{side}", grad_norm)
        return grad_norm

    def log_part(self, name: str, value) -> None:
        """Adds a value to the mean that the next log shows under `name`."""
        entry = self._parts[name]
        entry[0], entry[1] = entry[0] + value, entry[1] + 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs the given values and the means of the named values since the last training log."""
        if "loss" in logs:
            logs = logs | {name: float(total) / count for name, (total, count) in self._parts.items()}
            logs["tokenizer_phase"] = float(self.phase == "tokenizer")
            self._parts.clear()
        super().log(logs, start_time)

    # Optimizer and schedule

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Makes the optimizer `optim` with one group for the recommender, and one for an item tokenizer.

        Raises:
            ValueError: the optimizer doesn't take groups.
        """
        if self.optimizer is None:
            recommender, tokenizer = self._sides()
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            if is_optimizer_factory(optimizer_class) or options.keys() & CHOOSES_WEIGHTS:
                raise ValueError(
                    f"`optim` is {OptimizerNames(self.args.optim).value!r}, which doesn't take groups of weights; "
                    "choose an optimizer that does, like 'adamw_torch'."
                )
            groups = [{"params": recommender, "lr": self.args.learning_rate}]
            if tokenizer:
                groups.append({"params": tokenizer, "lr": self.args.tokenizer_learning_rate})
            self.optimizer = optimizer_class(
                [group | {"weight_decay": self.args.weight_decay} for group in groups], **options
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> PhaseScheduler:
        """Makes a schedule of `lr_scheduler_type` per group, over the steps of the group's own phase."""
        if self.lr_scheduler is None:
            epoch_steps = math.ceil(self.batches_per_epoch() / self.args.gradient_accumulation_steps)
            self.lr_scheduler = phase_scheduler(self.create_optimizer(), self.args, num_training_steps, epoch_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # Evaluation and saving

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None):
        """Returns item indices ranked by constrained beam search, `[batch, listed]`, and targets `[batch]`."""
        inputs = self._prepare_inputs(inputs)
        core = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            items, _ = core.recommend(
                **core.catalogue.inputs_from_items(inputs["history"]),
                top_k=min(max(KS), self.args.num_beams),
                num_beams=self.args.num_beams,
                **BY_CODES_ALONE,
            )
        return None, items, inputs["target"]

    def prefixes(self) -> torch.LongTensor:
        return self.model.catalogue.item_codes[:, :-1]

    def tokenizer_spans(self) -> list[tuple[float, float]]:
        return self.args.tokenizer_spans(self.state.epoch or 0.0)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        self.processing_class = self.item_id_tokenizer(self.model)
        super()._save(output_dir, state_dict)
