"""The base class of all trainers of this package."""

import json
import math
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import PreTrainedModel, ProgressCallback, Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import HubStrategy

from ...data.folders import replace_text
from ...data.progress import bars_hidden
from ...evaluation.code_diagnostics import code_diagnostics
from ...hub.model_card import write_model_card
from ...hub.model_folder import check_files
from ...hub.training_record import TrainingRecord
from ...models.file_modes import set_usual_modes
from .callbacks import EarlyStoppingCallback, SamplerEpochCallback, StageClock, TerminationCallback, TimeLimitCallback
from .checkpoints import RESUMABLE, STAGING, check_same_sizes, last_checkpoint, move_checkpoint, move_model
from .progress import TrainingProgressCallback
from .recording import check_same_run, stage_of_run
from .refusals import (
    REFUSED_ARGUMENTS,
    check_best_metric,
    check_eval_dataset,
    check_model,
    check_training_arguments,
    chooses_best,
    further_arguments,
)


class BaseTrainer(Trainer):
    """A Trainer that refuses infinite losses, writes checkpoints whole or not at all, and records its run.

    It overrides these methods of transformers' Trainer:

    - `training_step`: training ends at the first loss that is NaN or infinite.
    - `_save_checkpoint`, `_get_output_dir`, `save_model`: a checkpoint or model is written into a folder `.incomplete`
      and moved when every file is there, so a killed run leaves no incomplete checkpoint.
    - `_save`: no pickle of the arguments is kept, files have their usual modes, and `write_beside` adds its files.
    - `train`, `_init_training_state`, `_load_callback_state`, `_load_best_model`: a checkpoint is checked before it is
      loaded, and may have been moved with its run.
    - `_load_optimizer_and_scheduler`: a resumed run has its own learning rates and weight decay.
    - `_run_epoch`: a run whose last update is made trains no further one.
    - `create_model_card`: the card is written with the model.
    - `_get_dataloader`: datasets that the trainer can't evaluate are refused.
    - `_determine_best_metric`: nothing is done for several evaluation datasets unless they choose a checkpoint.
    - `hyperparameter_search`: it is refused, because it would need a `model_init`.

    A subclass sets `stage`, `unit`, `model_class`, `args_class`, `evaluated` and `refused_arguments`, and calls
    `checked` first. It may extend `check_checkpoint`, `stage_entry` and `write_beside`. Weights that the caller froze
    (`requires_grad` is False) aren't trained.

    Args:
        model (`PreTrainedModel`): the model to train.
        args (`TrainingArguments`): arguments.
        record ([`TrainingRecord`], *optional*): record of the data and of earlier stages.
        **kwargs: further arguments of `Trainer`, except those in `REFUSED_ARGUMENTS`.

    Raises:
        ValueError: `hub_strategy` publishes during training.
        ValueError: `split_batches` of accelerate is set.
        ValueError: there are several evaluation datasets, and `metric_for_best_model` names none of them.
    """

    stage = "training"
    unit = "samples"  # what `samples_per_epoch` counts
    model_class: type[PreTrainedModel] = PreTrainedModel
    args_class: type[TrainingArguments] = TrainingArguments
    evaluated: tuple[type, ...] = (Dataset,)  # kinds of datasets that the trainer evaluates
    refused_arguments = REFUSED_ARGUMENTS  # arguments of `Trainer`, and the remedy for each
    _staging: str | None = None

    def __init__(self, model, args, record: TrainingRecord | None = None, **kwargs):
        if args.push_to_hub and args.hub_strategy != HubStrategy.END:
            raise ValueError(
                f"`hub_strategy` is {args.hub_strategy.value!r}, which publishes incomplete models during training; "
                "choose 'end': the whole model is pushed when it is saved."
            )
        if args.accelerator_config.split_batches:
            raise ValueError(
                "`split_batches` of `accelerator_config` is True, but batch sizes are per device; leave "
                "`split_batches` out, and give smaller batch sizes."
            )
        check_best_metric(args, kwargs.get("eval_dataset"))
        self.record = record or TrainingRecord()
        self.holds_best = False  # whether the best checkpoint's weights were loaded
        super().__init__(model=model, args=args, **kwargs)
        self.add_callback(SamplerEpochCallback())
        self.add_callback(TerminationCallback(self))
        if self.pop_callback(ProgressCallback) is not None:  # absent with `disable_tqdm`, another class in notebooks
            self.add_callback(TrainingProgressCallback(self))
        self.add_callback(StageClock())
        if getattr(args, "max_seconds", None) is not None:
            self.add_callback(TimeLimitCallback(self))

    def checked(self, model: object, args: object, given: dict) -> dict:
        """Checks everything that a trainer is given, and returns the further arguments of `Trainer`.

        Raises:
            ValueError: the model, the arguments or an evaluation dataset are of another kind.
            ValueError: the model has adapters of PEFT, or is in float16.
            ValueError: a refused argument is given.
        """
        further = further_arguments(given, self.refused_arguments)
        check_model(model, self.model_class)
        check_training_arguments(args, self.args_class)
        check_eval_dataset(further.get("eval_dataset"), self.evaluated)
        return further

    @property
    def updates_left_out(self) -> int:
        """Returns the number of planned updates for which `max_seconds` left no time."""
        limits = [callback for callback in self.callback_handler.callbacks if isinstance(callback, TimeLimitCallback)]
        is_cut = any(limit.has_ended_it for limit in limits)
        return self.state.max_steps - self.state.global_step if is_cut else 0

    @property
    def early_stop(self) -> str:
        """Returns a sentence about where and why early stopping ended the training, or `""`."""
        stops = (each.reason for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback))
        return next(stops, "")

    @property
    def progress_title(self) -> str:
        """Returns the title of the progress display."""
        return self.stage

    @property
    def may_end(self) -> bool:
        """Returns whether training may end at the current step."""
        return True

    def samples_per_epoch(self) -> int:
        """Returns how many samples all processes read per epoch."""
        return len(self.train_dataset)

    # Steps

    def _get_dataloader(self, dataset, *args, is_training: bool = False, **kwargs):
        if not is_training:
            check_eval_dataset(dataset, self.evaluated)
        return super()._get_dataloader(dataset, *args, is_training=is_training, **kwargs)

    def training_step(self, model, inputs, *args, **kwargs) -> torch.Tensor:
        """Trains on a batch. A loss that is NaN or infinite ends training before weights are updated with it.

        Raises:
            FloatingPointError: the loss isn't finite. The step and its batch are saved in `output_dir`.
        """
        loss = super().training_step(model, inputs, *args, **kwargs)
        value = loss.item()  # waits for the device, as Trainer's own `logging_nan_inf_filter` would
        if not math.isfinite(value):
            step = self.state.global_step + 1
            path = Path(self.args.output_dir, f"loss_{value}_step{step}_process{self.args.process_index}.json")
            failure = {"step": step, "epoch": self.state.epoch, "loss": value, "batch": inputs}
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(failure, default=lambda array: array.tolist())
            replace_text(path, text)
            raise FloatingPointError(
                f"the loss is {value} at step {step}; its batch is saved in {str(path)!r}. Resume from the newest "
                "checkpoint with a lower learning rate, or repair the data if only this batch fails."
            )
        return loss

    # Saving

    def _get_output_dir(self, trial) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial) -> None:
        run_dir = super()._get_output_dir(trial)
        staging = os.path.join(run_dir, STAGING)
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:  # each writer raises an error of its own
            shutil.rmtree(staging, ignore_errors=True)
            raise OSError(
                f"the checkpoint of step {self.state.global_step} can't be written to {run_dir!r}: {error}. Earlier "
                "checkpoints are intact: make room, and resume with --resume true."
            ) from error
        finally:
            self._staging = None
        self._locate_best_checkpoint(just_saved=name)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            move_checkpoint(staging, run_dir, name, self.state, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _locate_best_checkpoint(self, just_saved: str | None = None) -> None:
        """Sets the state's best checkpoint to its path in this run's folder, in case the folder was moved."""
        name = f"checkpoint-{self.state.best_global_step}"
        folder = os.path.join(self.args.output_dir, name)
        if self.state.best_global_step is not None and (name == just_saved or os.path.isdir(folder)):
            self.state.best_model_checkpoint = folder

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model for `from_pretrained`; `config.json` is moved in last, and nothing loads without it."""
        if _internal_call and output_dir is not None:  # a checkpoint, which is staged already
            super().save_model(output_dir, _internal_call=True)
            return
        folder = output_dir or self.args.output_dir
        staging = os.path.join(folder, STAGING)
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        super().save_model(staging, _internal_call=True)
        if self.args.should_save:
            move_model(staging, folder)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        with bars_hidden():
            super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        # the arguments as a pickle, which nobody should have to trust; resuming doesn't need them
        (folder / "training_args.bin").unlink()
        set_usual_modes(folder)
        self.write_beside(folder)

    def create_model_card(self, *args, **kwargs) -> None:
        """Does nothing, because the card was written with the model."""

    # Resuming

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains, from a checkpoint if one is given (`True`: the newest in `output_dir`).

        Raises:
            FileNotFoundError: there is no checkpoint, or one of its files is missing.
            ValueError: the checkpoint is damaged, or belongs to another model or run.
            ValueError: the caller has frozen all weights.
        """
        if not any(weight.requires_grad for weight in self.model.parameters()):
            raise ValueError(
                "every weight of the model is frozen (`requires_grad` is False), so nothing would be trained; set "
                "`requires_grad_(True)` of the weights to train."
            )
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        if resume_from_checkpoint:
            self.check_checkpoint(str(resume_from_checkpoint))
            rank = f"_{self.args.process_index}" if self.args.world_size > 1 else ""
            check_files(resume_from_checkpoint, (f"rng_state{rank}.pth",))
        self.holds_best = False
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, TerminationCallback | TrainingProgressCallback):
                    callback.close()

    def check_checkpoint(self, folder: str) -> None:
        """Checks that this run can be resumed from a checkpoint.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged.
            ValueError: the model has other sizes.
            ValueError: the checkpoint belongs to another dataset, or to a run that reads samples in another order.
        """
        check_files(folder, RESUMABLE)
        check_same_sizes(self.model.config, type(self.model.config).from_pretrained(folder), folder)
        check_same_run(TrainingRecord.read(folder), folder, self.record, self.args)

    def _init_training_state(self, *args, **kwargs) -> tuple[int, int]:
        position = super()._init_training_state(*args, **kwargs)
        self._locate_best_checkpoint()
        return position

    def _load_callback_state(self) -> None:
        """Restores the callbacks of a checkpoint, but with this run's patience."""
        super()._load_callback_state()
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):  # the run of the checkpoint may have had none of its kind
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience = self.args.early_stopping_patience

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Restores optimizer and schedule of a checkpoint, but with the options of this run's optimizer."""
        options = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]
        super()._load_optimizer_and_scheduler(checkpoint)
        for group, own in zip(self.optimizer.param_groups, options):
            group.update(own)
        schedule = self.lr_scheduler
        if checkpoint is not None and isinstance(schedule, LambdaLR):
            schedule.base_lrs = [own["initial_lr"] for own in options]
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            schedule._last_lr = [base * factor for base, factor in zip(schedule.base_lrs, factors)]
            for group, rate in zip(self.optimizer.param_groups, schedule._last_lr):
                group["lr"] = rate

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
        else:
            self.control.should_training_stop = True

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        metric = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if f"eval_{metric}" not in metrics and not chooses_best(self.args):
            return False
        return super()._determine_best_metric(metrics, trial)

    def hyperparameter_search(self, *args, **kwargs):
        """Refuses a search over hyperparameters; make a new trainer for each trial instead.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"`hyperparameter_search` needs a `model_init`, which this trainer can't use: "
            f"{REFUSED_ARGUMENTS['model_init']}."
        )

    def _load_best_model(self) -> None:
        check_files(self.state.best_model_checkpoint)
        super()._load_best_model()
        self.holds_best = True

    # Recording

    def prefixes(self) -> torch.LongTensor:
        """Returns the items' codes without suffix, `[n_items, levels]`, for the statistics in the record."""
        raise NotImplementedError

    def tokenizer_spans(self) -> list[tuple[float, float]]:
        """Returns first and last epoch of each span in which alternating training trained the item tokenizer."""
        return []

    def stage_entry(self) -> dict:
        """Returns this run's entry in the stages of a training record."""
        return stage_of_run(self)

    def record_now(self) -> TrainingRecord:
        """Returns the training record, with this run as its last stage."""
        codes = code_diagnostics(self.prefixes().cpu(), self.model.config.codebook_size)
        stages = [*self.record.stages, self.stage_entry()]
        return TrainingRecord(self.record.data, stages, codes, fingerprint=self.record.fingerprint)

    def write_beside(self, folder: Path) -> None:
        """Writes training record and model card into a folder with saved weights."""
        record = self.record_now()
        record.write(folder)
        write_model_card(folder, self.model.config, record, self.hub_model_id or self.args.output_dir)
