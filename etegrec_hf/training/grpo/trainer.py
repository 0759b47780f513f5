"""Reinforcement learning of the recommender, on TRL's GRPO."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler, SequentialSampler
from transformers import EvalPrediction
from transformers.utils import logging
from trl import GRPOTrainer

from ...data.sequences import SequenceDataset
from ...evaluation.metrics import KS, rank, spread_metrics
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.search_options import BY_CODES_ALONE
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.arguments import order_seed
from ..base.callbacks import EarlyStoppingCallback
from ..base.freezing import freeze, thaw
from ..base.recording import validation_metrics
from ..base.refusals import REFUSED_ARGUMENTS, check_dataset, check_eval_dataset, named_datasets
from ..base.trainer import BaseTrainer
from .arguments import ETEGRecGRPOConfig
from .callbacks import GenerationBorderCallback, StartingPointCallback
from .policy import CodePolicy, encode_distinct
from .prompts import GroupSampler, as_prompts, lengths_and_targets

logger = logging.get_logger(__name__)

STANDING_STILL = ("item_tokenizer", "sequence_adapter", "preference_adapter")
SAME_REWARD = 1e-6  # rewards of a group that differ by no more than this are equal


class ETEGRecGRPOTrainer(BaseTrainer, GRPOTrainer):
    """Trains a recommender by rewards of the items that it recommends.

    Besides the methods that [`BaseTrainer`] overrides, it overrides these methods of TRL's trainer:

    - `_tokenize_prompts`, `_generate_single_turn`, `_generate`: a history becomes its codes, a group of completions is
      found with one pass over its history, and a completion is an item index.
    - `_get_per_token_logps_and_entropies`: log-probabilities are those of the [`CodePolicy`] that completions are
      sampled from; `top_k` doesn't change them. Each distinct history of a batch is encoded once, with gradients.
    - `_calculate_rewards`, `_generate_and_score_completions`, `compute_loss`: groups whose rewards are all equal are
      left out and counted, and groups stay whole when TRL shuffles completions.
    - `train`: codes don't change. Item tokenizer and the adapters for alignment are frozen.
    - `_get_train_sampler`: batches hold histories of similar length, in an order that a resumed run repeats.
    - `_get_dataloader`: a [`SequenceDataset`] is read as prompts, in `evaluate` too.
    - `prediction_step`, `_get_eval_sampler`: evaluation ranks items instead of rewarding completions.
    - `_init_training_state`: a resumed run generates new completions at the right steps.
    - `log`: lengths of completions aren't logged, and a warning says if nothing was learned.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender.
        reward_funcs (`Callable` or `list[Callable]`): rewards, see [`~etegrec_hf.training.grpo.rewards`]; weighted by
            `args.reward_weights`.
        args ([`ETEGRecGRPOConfig`]): arguments.
        train_dataset ([`SequenceDataset`] or `datasets.Dataset`): histories and targets. A `Dataset` has a `prompt`
            (item indices, oldest first), a `target` (an item index) and further columns that rewards read.
        eval_dataset ([`SequenceDataset`] or `datasets.Dataset`, *optional*): users to rank the catalogue for, or
            several such datasets by name.
        processing_class ([`ETEGRecTokenizer`]): the model's tokenizer.
        record ([`TrainingRecord`], *optional*): record of the data and of earlier stages.
        **kwargs: further arguments of TRL's trainer that aren't refused, like `callbacks`.

    Raises:
        ValueError: the model, the arguments or a dataset are of another kind.
        ValueError: a refused argument of TRL's trainer is given.
        ValueError: there is no reward.
        ValueError: the tokenizer belongs to another model.
        ValueError: a dataset lacks `prompt` or `target`.
        ValueError: `max_completion_length` isn't the code length.
        ValueError: a group is larger than the catalogue.

    Source: Shao et al., DeepSeekMath (2024), for GRPO.
    """

    stage = "reinforcement learning"
    unit = "prompts"
    args: ETEGRecGRPOConfig
    model_class = ETEGRecForConditionalGeneration
    args_class = ETEGRecGRPOConfig
    evaluated = (SequenceDataset, Dataset)
    refused_arguments = (
        REFUSED_ARGUMENTS
        | {"peft_config": "adapters wouldn't be saved completely; freeze weights by `requires_grad_(False)`"}
        | {"quantization_config": "the model is loaded already; load it in a form that can be trained"}
        | dict.fromkeys(
            ("reward_processing_classes", "tools", "rollout_func", "environment_factory"),
            "completions are items, found by `rollout` and rewarded by functions",
        )
    )

    def __init__(
        self,
        model: ETEGRecForConditionalGeneration,
        reward_funcs: Callable | list[Callable],
        args: ETEGRecGRPOConfig,
        train_dataset: SequenceDataset | Dataset,
        eval_dataset: SequenceDataset | Dataset | None = None,
        processing_class: ETEGRecTokenizer | None = None,
        **kwargs,
    ):
        kwargs = self.checked(model, args, kwargs | {"eval_dataset": eval_dataset})
        check_dataset("train_dataset", train_dataset, (SequenceDataset, Dataset))
        if processing_class is None:
            raise ValueError(
                "`processing_class` is None; give the model's `ETEGRecTokenizer`, which is saved with it."
            )
        model.catalogue.check_tokenizer(processing_class)
        code_length = model.config.code_length
        if args.max_completion_length not in (None, code_length):
            raise ValueError(
                f"`max_completion_length` is {args.max_completion_length}, but the model's `code_length` is "
                f"{code_length}, and a completion is the codes of one item; leave `max_completion_length` out."
            )
        args.max_completion_length = code_length
        if model.config.constrained_softmax and not args.constrained:
            raise ValueError(
                "`constrained` is False, but the model's `constrained_softmax` is True, so only items have "
                "probabilities; leave `constrained` at True."
            )
        distinct = model.catalogue.trie.n_items if args.constrained else model.config.codebook_size**code_length
        if args.rollout != "sample" and distinct < args.num_generations:
            raise ValueError(
                f"`num_generations` is {args.num_generations} and `rollout` is {args.rollout!r}, which needs as many "
                f"distinct completions, but there are {distinct}; give a smaller group, or the rollout 'sample'."
            )
        n_items = model.config.n_items
        for name, dataset in named_datasets(eval_dataset).items():
            if not isinstance(dataset, SequenceDataset):
                lengths_and_targets(name, as_prompts(dataset), n_items)
        if isinstance(train_dataset, SequenceDataset):
            lengths, items = train_dataset.lengths, train_dataset.sequences
        else:
            lengths, items = lengths_and_targets("train_dataset", as_prompts(train_dataset), n_items)
        self.item_counts = np.bincount(items, minlength=n_items + 1)
        self.lengths = np.minimum(lengths, model.config.max_history)
        model.__dict__.pop("forward", None)  # a replacement by an earlier trainer
        reference = copy.deepcopy(model).requires_grad_(False) if args.beta else None
        rewards = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        if not rewards:
            raise ValueError("`reward_funcs` is empty; give a function that returns a number per completion.")
        for reward in rewards:
            group_size = getattr(reward, "num_generations", args.num_generations)
            if group_size != args.num_generations:
                raise ValueError(
                    f"the reward {name_of(reward)!r} was made for groups of {group_size}, but "
                    f"`num_generations` is {args.num_generations}; make the reward with the same number."
                )
        beta, args.beta = args.beta, 0.0  # with one above 0, TRL would load a reference as a causal language model
        try:
            super().__init__(
                model,
                args,
                reward_funcs=[checked(reward) for reward in rewards],
                train_dataset=as_prompts(train_dataset),
                processing_class=processing_class,
                **kwargs,
            )
        finally:
            args.beta = beta
        model.__dict__.pop("forward", None)  # TRL's head for causal language models
        self.beta = beta
        if reference is not None:
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.policy = CodePolicy(model, args.temperature, args.top_k, args.constrained)
        self.compute_metrics = self.rank_and_spread
        self._log_probability: list[float] = []  # of the newest completions
        self._is_learned: torch.Tensor  # per group of the newest completions on this device: do its rewards differ?
        self.add_callback(GenerationBorderCallback(args.batches_per_round))
        self.add_callback(StartingPointCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def train(self, *args, **kwargs):
        """Trains the recommender. Its other parts are frozen until the end of training."""
        parts = (getattr(self.model, name, None) for name in STANDING_STILL)
        still = freeze(weight for part in parts if part is not None for weight in part.parameters())
        try:
            return super().train(*args, **kwargs)
        finally:
            thaw(still)

    # Completions

    def _tokenize_prompts(self, prompts: list):
        """Returns token ids of the last `max_history` items of each history."""
        item_tokens, read = self.processing_class.item_tokens, self.model.config.max_history
        heads = [item_tokens[list(prompt[-read:])].flatten().tolist() for prompt in prompts[:: self.num_generations]]
        return [ids for ids in heads for _ in range(self.num_generations)], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """Returns token ids of each group's completions, and keeps their log-probabilities for rewards that rank."""
        core = self.accelerator.unwrap_model(self.model_wrapped)
        ids = pad_sequence([torch.tensor(ids) for ids in prompt_ids[::num_generations]], batch_first=True)
        ids = ids.to(self.accelerator.device)  # [groups, tokens]
        with torch.no_grad(), self.accelerator.autocast():
            encoded = encode_distinct(core, ids, (ids > 0).long())
            codes, log_p = self.policy.roll_out(encoded, self.args.rollout, num_generations)
        self._log_probability = log_p.flatten().tolist()
        return core.config.layout.token_ids(codes).flatten(0, 1).tolist(), None

    def _generate(self, prompts: list):
        """Returns completions as item indices, 0 for codes that belong to no item."""
        prompt_ids, completion_ids, tool_mask, _, *rest = super()._generate(prompts)
        core = self.accelerator.unwrap_model(self.model_wrapped)
        codes, trie = core.config.layout.codes(torch.tensor(completion_ids, device=core.device)), core.catalogue.trie
        return prompt_ids, completion_ids, tool_mask, trie.item(trie.walk(codes)).tolist(), *rest

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **multimodal,
    ):
        """Returns log-probabilities and entropies `[completions, code_length]`; groups that are left out have 0."""
        batch_size = batch_size or len(input_ids)
        batches = zip(input_ids.split(batch_size), attention_mask.split(batch_size))
        scored = [self._score(model, ids, mask, logits_to_keep) for ids, mask in batches]
        log_probs, entropies = (torch.cat(parts) for parts in zip(*scored))
        return log_probs, entropies if compute_entropy else None, None

    def _score(self, model, input_ids, attention_mask, code_length) -> tuple[torch.Tensor, torch.Tensor]:
        group, core = self.num_generations, self.accelerator.unwrap_model(model)
        labels = input_ids[:, -code_length:].unflatten(0, (-1, group))  # [groups, G, L]
        learned = attention_mask[::group, -1] > 0
        if not learned.any():
            learned[0] = True  # all devices must run forward and backward, even if they have nothing to learn from
        histories, mask = (tensor[::group, :-code_length][learned] for tensor in (input_ids, attention_mask))
        with self.accelerator.autocast():
            encoded = encode_distinct(core, histories, mask)
            logits = model(
                encoded.input_ids,
                encoded.attention_mask,
                candidates=labels[learned],
                encoder_outputs=(encoded.states,),
            ).logits
        scored = self.policy.log_probs(logits, core.config.layout.codes(labels[learned]))
        log_probs, entropies = (part.new_zeros(labels.shape).index_put((learned,), part) for part in scored)
        return log_probs.flatten(0, 1), entropies.flatten(0, 1)

    # Rewards and loss

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """Returns rewards `[completions of all devices, functions]`, and finds the groups whose rewards differ."""
        rows = [row | {"log_probability": value} for row, value in zip(inputs, self._log_probability)]
        rewards = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        for name, column in zip(self.reward_func_names, rewards.T):
            if column.isinf().any():
                raise ValueError(f"the reward {name!r} returned infinity; return numbers, or None for no reward.")
        metrics = self._metrics["train"]
        metrics["missing_rewards"].append(rewards.isnan().sum().item())
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        unknown = rewards.isnan().all(1)
        highest, lowest = (
            total.masked_fill(unknown, bound).unflatten(0, (-1, self.num_generations))
            for bound in (-torch.inf, torch.inf)
        )
        differ = highest.amax(1) - lowest.amin(1) > SAME_REWARD  # [groups of all devices]
        metrics["skipped_groups"].append((~differ).sum().item())
        groups = len(inputs) // self.num_generations
        self._is_learned = differ[self.accelerator.process_index * groups :][:groups]
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        """Returns tensors `[groups, G, ...]`, so that TRL shuffles whole groups; equal rewards have mask 0."""
        # tuples, because TRL takes lists for conversations
        output = super()._generate_and_score_completions([row | {"prompt": tuple(row["prompt"])} for row in inputs])
        left_out = ~self._is_learned.repeat_interleave(self.num_generations).unsqueeze(1)
        for name in ("completion_mask", "old_per_token_logps", "ref_per_token_logps"):
            if name in output:
                output[name] = output[name].masked_fill(left_out, 0)
        return {
            name: tensor.unflatten(0, (-1, self.num_generations)) if tensor.ndim else tensor
            for name, tensor in output.items()
        }

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = {name: tensor.flatten(0, 1) if tensor.ndim else tensor for name, tensor in inputs.items()}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs without the lengths of completions, and warns if nothing was learned."""
        metrics = self._metrics["train"]
        for name in [name for name in metrics if name.startswith("completions/")]:
            del metrics[name]
        groups = self.args.generation_batch_size // self.num_generations
        if "skipped_groups" in metrics and min(metrics["skipped_groups"]) == groups:
            logger.warning(
                f"step {self.state.global_step}: nothing was learned since the last log, because in each group all "
                "rewards were equal; raise `num_generations` or `temperature`, or add a reward that differs more."
            )
        super().log(logs, start_time)

    # Data, evaluation and resuming

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        if not self.shuffle_dataset:
            return super()._get_train_sampler(dataset)
        histories = self.args.generation_batch_size // self.num_generations
        return GroupSampler(
            self.lengths, histories, self.num_generations, self.args.batches_per_round, order_seed(self.args)
        )

    def _get_dataloader(self, dataset, *args, **kwargs):
        check_eval_dataset(dataset, self.evaluated)
        return super()._get_dataloader(as_prompts(dataset), *args, **kwargs)

    def _get_eval_sampler(self, eval_dataset) -> Sampler:
        return SequentialSampler(eval_dataset)

    def prediction_step(self, model, inputs: list[dict], prediction_loss_only, ignore_keys=None):
        """Returns item indices ranked by constrained beam search, `[batch, listed]`, and targets `[batch]`."""
        core = self.accelerator.unwrap_model(model)
        histories = [torch.tensor(row["prompt"][-core.config.max_history :]) for row in inputs]
        targets = torch.tensor([row["target"] for row in inputs], device=core.device)
        with self.accelerator.autocast():
            items, _ = core.recommend(
                **core.catalogue.inputs_from_items(pad_sequence(histories, batch_first=True).to(core.device)),
                top_k=min(max(KS), self.args.num_beams),
                num_beams=self.args.num_beams,
                **BY_CODES_ALONE,
            )
        return None, items, targets

    def rank_and_spread(self, prediction: EvalPrediction) -> dict[str, float]:
        """Returns ranking metrics, and the variety of the recommended items."""
        return rank(prediction) | spread_metrics(prediction.predictions, self.item_counts)

    def _init_training_state(self, *args, **kwargs) -> tuple[int, int]:
        position = super()._init_training_state(*args, **kwargs)
        self._step = self.state.global_step * self.args.gradient_accumulation_steps  # decides when completions are new
        self._buffered_inputs = None
        return position

    # Records

    def prefixes(self) -> torch.LongTensor:
        """Returns the items' codes without suffix, `[n_items, levels]`."""
        return self.model.catalogue.item_codes[:, :-1]

    def validation_rows(self) -> list[dict[str, float]]:
        """Returns validation metrics per evaluation, those of the starting model (step 0) first."""
        by_step = validation_metrics(self.state.log_history)
        return [{"step": step, **metrics} for step, metrics in by_step.items()]

    def stage_entry(self) -> dict:
        """Returns this run's entry in a training record, with its rewards and the starting model's metrics."""
        weighted = zip(self.reward_weights.tolist(), self.reward_func_names)
        entry = super().stage_entry() | {"rewards": " + ".join(f"{weight:g} {name}" for weight, name in weighted)}
        before = validation_metrics(self.state.log_history).get(0)
        return entry | ({} if before is None else {"validation_before": before})


def name_of(reward: Callable) -> str:
    """Returns the name of a reward in logs: its own name, or that of its class."""
    return getattr(reward, "__name__", type(reward).__name__)


def checked(reward: Callable) -> Callable:
    """Returns a reward, or a coroutine, whose result is checked to be a list; TRL then checks the list's length."""
    if isinstance(reward, (str, torch.nn.Module)):
        raise ValueError(
            f"a reward is a {type(reward).__name__}, but models that score text can't read items; give a function."
        )
    if not callable(reward):
        raise ValueError(f"a reward is {reward!r}; give a function that returns a number per completion.")

    def check(rewards, columns: dict) -> list:
        if not hasattr(rewards, "__len__"):
            raise ValueError(
                f"the reward {name_of(reward)!r} returned {rewards!r}; return a list with a number (or None) for each "
                f"of the {len(columns['completions'])} completions."
            )
        return rewards

    async def awaited(**columns):
        return check(await reward(**columns), columns)

    def call(**columns):
        return check(reward(**columns), columns)

    is_coroutine = inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)
    wrapper: Any = awaited if is_coroutine else call
    wrapper.__name__, wrapper.__wrapped__ = name_of(reward), reward
    return wrapper
