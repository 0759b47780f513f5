"""Alternating training and finetuning of the recommender."""

import math
from collections import defaultdict
from functools import cached_property

import torch
from torch.utils.data import DataLoader
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.training_args import OptimizerNames

from ...data.sequences import LengthGroupedSampler, SequenceDataset, TokenBudgetBatches, WholeSequenceDataset, as_batch
from ...data.streamed_sequences import StreamedBatches, StreamedSequences
from ...evaluation.metrics import KS, rank
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.search_options import BY_CODES_ALONE
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.arguments import order_seed
from ..base.callbacks import EarlyStoppingCallback, EpochBorderCallback
from ..base.freezing import freeze, thaw
from ..base.refusals import REFUSED_ARGUMENTS, check_dataset
from ..base.trainer import BaseTrainer
from .arguments import ETEGRecTrainingArguments
from .batches import loader_of, make_own_batches
from .callbacks import AlternatingPhaseCallback, CodeRefreshCallback
from .cheap_dropout import cheapen_dropout
from .checks import check_embeddings, check_item_logits
from .phase_losses import PhaseLosses
from .processes import average_gradients, start_alike
from .schedule import PhaseScheduler, phase_scheduler
from .target_batch import TargetBatch

CHOOSES_WEIGHTS = {"params", "model", "optimizer_dict"}  # options of optimizers that take no groups


class ETEGRecTrainer(BaseTrainer):
    """Trains a recommender and its item tokenizer in turns, or finetunes the recommender.

    What it overrides of transformers' Trainer besides what [`BaseTrainer`] does, and why:

    - `_get_train_sampler`, `get_train_dataloader`, `num_examples`: batches hold histories of like length, so that work
      is proportional to real tokens; batches of `max_tokens_per_batch` and of [`StreamedSequences`] are our own.
    - `_prepare_for_training`, `training_step`: processes start from the same model and update it by the mean of their
      gradients. DDP would fix at the start what it averages, and averages after a `forward` of the whole model; here
      the sides take turns, and the tokenizer phase calls the RQ-VAE alone.
    - `compute_loss`, `_get_num_items_in_batch`: the loss is a sum of named parts, by phase, and each target counts
      alike.
    - `_get_grad_norm`, `log`: gradient norms and loss parts are logged by name.
    - `create_optimizer`, `create_scheduler`: each side has its group, whose schedule advances in its own phase.
    - `prediction_step`: evaluation ranks items.
    - `_save`: the saved tokenizer is that of the codes of this moment.

    Freezing and refreshing codes is what callbacks do.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): with codes, and with semantic embeddings unless they are given.
        args ([`ETEGRecTrainingArguments`]): arguments; [`FinetuningArguments`] for the finetune stage.
        item_ids (`list[str]`): in the order of item indices.
        train_dataset ([`SequenceDataset`] or [`WholeSequenceDataset`]): every position is a target, by a pass over its
            own history, or by one pass over the sequence that it stands in, for which the encoder must be causal. Or
            [`StreamedSequences`] that make these.
        item_titles (`dict[str, str]`, *optional*): titles of items, saved with the tokenizer.
        semantic_embedding (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): for a model that holds
            none. They stay where they are, on disk if they are mapped: only rows of a batch's targets are read, and
            no checkpoint holds them.
        **kwargs: further arguments of [`BaseTrainer`]: `record`, `eval_dataset` (a [`SequenceDataset`] of last
            positions, or several by name), `callbacks`, ...

    Raises:
        ValueError: a model, arguments or datasets of another kind, or an argument of `Trainer` that is refused.
        ValueError: another number of ids than the model has items.
        ValueError: item logits of more than 200,000 items, or detached ones without `item_weight`.
        ValueError: no embeddings to train the tokenizer with.
        ValueError: `semantic_embedding` beside those of the model, of another shape or with NaN.
    """

    loss_is_scaled_for_ga = True  # by each batch's share of the targets
    unit = "targets"
    model_class = ETEGRecForConditionalGeneration
    args_class = ETEGRecTrainingArguments
    evaluated = (SequenceDataset,)
    refused_arguments = REFUSED_ARGUMENTS | {
        "processing_class": "the tokenizer is made of the model's codes and `item_ids`"
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
        self.item_ids, self.item_titles = item_ids, item_titles
        self.semantic_embedding = semantic_embedding
        self.phase_losses = PhaseLosses(args, semantic_embedding)
        self.stage = args.stage
        self.phase, self.aligned = "finetune", False
        self._resting: list[torch.nn.Parameter] = []  # weights of the side that stands still, to be thawed
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
        self.add_callback(EpochBorderCallback())
        self.add_callback(CodeRefreshCallback(self))
        self.add_callback(AlternatingPhaseCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def item_id_tokenizer(self, model: ETEGRecForConditionalGeneration) -> ETEGRecTokenizer:
        """The tokenizer of the codes that the model has now."""
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
        """The phase, where phases take turns."""
        return self.stage if self.phase == "finetune" else f"{self.phase} phase"

    @property
    def may_end(self) -> bool:
        """Not in a tokenizer phase: no recommender would have learned the codes that it ends with."""
        return self.phase != "tokenizer"

    def samples_per_epoch(self) -> int:
        """Returns the targets of an epoch, of whole sequences too."""
        return self.train_dataset.n_targets

    # Batches and processes

    def _get_train_sampler(self, train_dataset=None) -> LengthGroupedSampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, order_seed(self.args))

    @cached_property
    def own_batches(self) -> StreamedBatches | TokenBudgetBatches | None:
        """The training batches, where Trainer doesn't know their kind."""
        return make_own_batches(self.train_dataset, self.args, self.model.config.code_length)

    def get_train_dataloader(self) -> DataLoader:
        """Returns batches of a number of samples, or of `max_tokens_per_batch`, from memory or as they are read."""
        if self.own_batches is None:
            return super().get_train_dataloader()
        return loader_of(self.train_dataset, self.own_batches, self.args)

    def num_examples(self, dataloader: DataLoader) -> int:
        """Returns the number of samples, also where whole batches are read."""
        return len(self.train_dataset) if dataloader.dataset is self.own_batches else super().num_examples(dataloader)

    def batches_per_epoch(self) -> int:
        """Returns the number of batches of each process."""
        if self.own_batches is not None:
            return len(self.own_batches)
        batches = len(self.train_dataset) / (self.args.train_batch_size * self.args.world_size)
        return math.floor(batches) if self.args.dataloader_drop_last else math.ceil(batches)

    def _prepare_for_training(self, *args, **kwargs):
        # accelerate doesn't wrap a model in DDP that it has prepared for evaluation already
        self.accelerator.prepare_model(self.model, evaluation_mode=True)
        prepared = super()._prepare_for_training(*args, **kwargs)
        start_alike(self.model)
        return prepared

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Trains this process on a batch, and averages the gradients of all processes at the end of an update."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            average_gradients(self.accelerator, self.model.parameters())
        return loss

    # Phases

    def train(self, *args, **kwargs):
        """Trains, and lets both sides be trained again at the end; what the caller froze stays frozen.

        Raises:
            ValueError: the caller has frozen all weights of a side that is to be trained.
        """
        self._end_phase()
        recommender, tokenizer = self._sides()
        sides = {"recommender": recommender} | (
            {"item tokenizer": tokenizer} if self.args.phase(0) == "tokenizer" else {}
        )
        for side, weights in sides.items():
            if not any(weight.requires_grad for weight in weights):
                raise ValueError(
                    f"every weight of the {side} is frozen (`requires_grad` False), so its phase would train nothing; "
                    "thaw those that are to learn by `requires_grad_(True)`. With `freeze_tokenizer` the recommender "
                    "is trained alone."
                )
        try:
            return super().train(*args, **kwargs)
        finally:
            self._end_phase()

    def enter_phase(self, phase: str, aligned: bool) -> None:
        """Freezes the side that `phase` doesn't train; `aligned` says whether SIA and PSA count.

        Weights of the other side are trained, but those that the caller froze.
        """
        self._end_phase()
        self.phase, self.aligned = phase, aligned
        recommender, tokenizer = self._sides()
        self._resting = freeze(recommender if phase == "tokenizer" else tokenizer)

    def _end_phase(self) -> None:
        thaw(self._resting)
        self._resting = []

    def _sides(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """The weights of the recommender, and those of its item tokenizer."""
        item_tokenizer = self.model.item_tokenizer
        tokenizer = [] if item_tokenizer is None else list(item_tokenizer.parameters())
        own = {id(weight) for weight in tokenizer}
        return [weight for weight in self.model.parameters() if id(weight) not in own], tokenizer

    # Losses

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """Returns the weighted sum of the phase's loss parts, each of which is logged by its name."""
        core, batch = self.accelerator.unwrap_model(model), TargetBatch.of(inputs)
        trains_tokenizer = self.phase == "tokenizer"
        core.train(not trains_tokenizer)  # dropout only on the side that is trained
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
                f"every loss of the {self.phase} phase has weight 0 now: `vq_weight` or `code_weight`, and before "
                "`warm_epochs` the alignments too; give one of them a weight."
            )
        if trains_tokenizer:
            parts, outputs = self.phase_losses.of_tokenizer(core, batch, weights), None
        else:
            parts, outputs = self.phase_losses.of_recommender(model, core, batch, weights)
        for name, part in parts.items():
            self.log_part(f"loss_{name}", part.detach())
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        if num_items_in_batch is not None:  # each target counts alike in an update, of whatever batch and process
            loss = loss * len(batch.targets) * self.args.world_size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        """Returns the targets of all batches and processes that make up an update."""
        targets = sum(len(TargetBatch.of(inputs).targets) for inputs in batch_samples)
        return self.accelerator.reduce(torch.tensor(float(targets), device=device), "sum")

    def _get_grad_norm(self, model, grad_norm=None):
        """Trainer's, of before clipping; also logged as that of the side in training, the only one with gradients."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        side = "item_tokenizer" if self.phase == "tokenizer" else "recommender"
        self.log_part(f"grad_norm_{side}", grad_norm)
        return grad_norm

    def log_part(self, name: str, value) -> None:
        """Adds a value to the mean that the next log shows under `name`."""
        entry = self._parts[name]
        entry[0], entry[1] = entry[0] + value, entry[1] + 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs, with the means of the named parts since the last training log."""
        if "loss" in logs:
            logs = logs | {name: float(total) / count for name, (total, count) in self._parts.items()}
            logs["tokenizer_phase"] = float(self.phase == "tokenizer")
            self._parts.clear()
        super().log(logs, start_time)

    # Optimizer and schedule

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """`optim` with two groups: the recommender, and the item tokenizer if there is one.

        Raises:
            ValueError: an optimizer that doesn't take groups.
        """
        if self.optimizer is None:
            recommender, tokenizer = self._sides()
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            if is_optimizer_factory(optimizer_class) or options.keys() & CHOOSES_WEIGHTS:
                raise ValueError(
                    f"`optim` is {OptimizerNames(self.args.optim).value!r}, which chooses the weights that it trains; "
                    "choose one that takes groups of weights, like 'adamw_torch'."
                )
            groups = [{"params": recommender, "lr": self.args.learning_rate}]
            if tokenizer:
                groups.append({"params": tokenizer, "lr": self.args.tokenizer_learning_rate})
            self.optimizer = optimizer_class(
                [group | {"weight_decay": self.args.weight_decay} for group in groups], **options
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> PhaseScheduler:
        """A schedule of `lr_scheduler_type` for each group, over the steps of its own phase."""
        if self.lr_scheduler is None:
            epoch_steps = math.ceil(self.batches_per_epoch() / self.args.gradient_accumulation_steps)
            self.lr_scheduler = phase_scheduler(self.create_optimizer(), self.args, num_training_steps, epoch_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # Evaluation and saving

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None):
        """Ranked item indices `[batch, listed]` and targets `[batch]`, by constrained beam search."""
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
