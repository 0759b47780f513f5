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
SAME_REWARD = 1e-6  # a group whose rewards lie within this is one whose rewards are equal


class ETEGRecGRPOTrainer(BaseTrainer, GRPOTrainer):
    """Trains a recommender by rewards of what it recommends.

    What it overrides of TRL's trainer besides what [`BaseTrainer`] does, and why:

    - `_tokenize_prompts`, `_generate_single_turn`, `_generate`: a history becomes its codes, a group of completions is
      found with one pass over its history, and a completion is an item index.
    - `_get_per_token_logps_and_entropies`: those of the [`CodePolicy`], from which completions are sampled (`top_k`
      narrows what is drawn and not its score), by one pass over each distinct history of a batch, with gradients.
    - `_calculate_rewards`, `_generate_and_score_completions`, `compute_loss`: groups whose rewards are all equal are
      left out and counted, and groups stay whole when TRL shuffles completions.
    - `train`: codes stand still, and so do the item tokenizer and the adapters that align with it.
    - `_get_train_sampler`: histories of like length, in an order that a resumed run finds again.
    - `_get_dataloader`: a [`SequenceDataset`] is read as prompts, in `evaluate` too.
    - `prediction_step`, `_get_eval_sampler`: evaluation ranks items instead of rewarding completions.
    - `_init_training_state`: a resumed run generates new completions where they are due.
    - `log`: figures of completions' lengths are left out, and a run that learns nothing says so.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender.
        reward_funcs (`Callable` or `list[Callable]`): rewards, see [`~etegrec_hf.training.grpo.rewards`]; weighted by
            `args.reward_weights`.
        args ([`ETEGRecGRPOConfig`]): arguments.
        train_dataset ([`SequenceDataset`] or `datasets.Dataset`): histories and targets; a `Dataset` has a `prompt`
            (item indices, oldest first), a `target` (an item index) and whatever else rewards read.
        eval_dataset ([`SequenceDataset`] or `datasets.Dataset`, *optional*): users to rank the catalogue for, or
            several such datasets by name.
        processing_class ([`ETEGRecTokenizer`]): the model's.
        record ([`TrainingRecord`], *optional*): what is known of data and earlier stages.
        **kwargs: further arguments of TRL's trainer that aren't refused, like `callbacks`.

    Raises:
        ValueError: a model, arguments or datasets of another kind, or an argument of TRL's trainer that is refused.
        ValueError: no reward.
        ValueError: a tokenizer of another model, a dataset without `prompt` or `target`, `max_completion_length` other
            than the code length, or a group larger than the catalogue.

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
        | {"peft_config": "adapters wouldn't be saved whole; freeze what is to stay by `requires_grad_(False)`"}
        | {"quantization_config": "the model is loaded already; give one that was loaded so that it can be trained"}
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
                f"`max_completion_length` is {args.max_completion_length} and the model's `code_length` "
                f"{code_length}: a completion is the codes of one item; leave it out."
            )
        args.max_completion_length = code_length
        if model.config.constrained_softmax and not args.constrained:
            raise ValueError(
                "`constrained` is False and the model's `constrained_softmax` True: its probabilities are shared "
                "among items alone; leave `constrained` at True."
            )
        distinct = model.catalogue.trie.n_items if args.constrained else model.config.codebook_size**code_length
        if args.rollout != "sample" and distinct < args.num_generations:
            raise ValueError(
                f"`num_generations` is {args.num_generations} and `rollout` {args.rollout!r}, which needs as many "
                f"distinct completions; there are {distinct}: take a smaller group, or 'sample'."
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
        model.__dict__.pop("forward", None)  # what an earlier trainer put in front of it
        reference = copy.deepcopy(model).requires_grad_(False) if args.beta else None
        rewards = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        if not rewards:
            raise ValueError("`reward_funcs` is empty; give a function that returns a number per completion.")
        for reward in rewards:
            group_size = getattr(reward, "num_generations", args.num_generations)
            if group_size != args.num_generations:
                raise ValueError(
                    f"the reward {name_of(reward)!r} was made for groups of {group_size} and "
                    f"`num_generations` is {args.num_generations}; make it for the same."
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
        self._is_learned: torch.Tensor  # [groups of the newest completions on this device] whose rewards differ
        self.add_callback(GenerationBorderCallback(args.batches_per_round))
        self.add_callback(StartingPointCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def train(self, *args, **kwargs):
        """Trains the recommender; whether its other parts are trained is afterwards as it was."""
        parts = (getattr(self.model, name, None) for name in STANDING_STILL)
        still = freeze(weight for part in parts if part is not None for weight in part.parameters())
        try:
            return super().train(*args, **kwargs)
        finally:
            thaw(still)

    # Completions

    def _tokenize_prompts(self, prompts: list):
        """Token ids of the last `max_history` items of each history."""
        item_tokens, read = self.processing_class.item_tokens, self.model.config.max_history
        heads = [item_tokens[list(prompt[-read:])].flatten().tolist() for prompt in prompts[:: self.num_generations]]
        return [ids for ids in heads for _ in range(self.num_generations)], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """Token ids of each group's completions; their log-probabilities are kept for rewards that rank."""
        core = self.accelerator.unwrap_model(self.model_wrapped)
        ids = pad_sequence([torch.tensor(ids) for ids in prompt_ids[::num_generations]], batch_first=True)
        ids = ids.to(self.accelerator.device)  # [groups, tokens]
        with torch.no_grad(), self.accelerator.autocast():
            encoded = encode_distinct(core, ids, (ids > 0).long())
            codes, log_p = self.policy.roll_out(encoded, self.args.rollout, num_generations)
        self._log_probability = log_p.flatten().tolist()
        return core.config.layout.token_ids(codes).flatten(0, 1).tolist(), None

    def _generate(self, prompts: list):
        """Completions as item indices, 0 for codes that are nobody's."""
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
        """Log-probabilities and entropies `[completions, code_length]` of whole groups; 0 for groups left out."""
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
            learned[0] = True  # all devices run forward and backward, whether or not they have something to learn
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
        """Rewards `[completions of all devices, functions]`; finds the groups in which they differ."""
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
        """Tensors `[groups, G, ...]`, so that TRL shuffles and splits whole groups; masked where rewards are equal."""
        # tuples, as TRL takes lists for conversations
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
        """Logs, without figures of completions' lengths, and says so when nothing was learned."""
        metrics = self._metrics["train"]
        for name in [name for name in metrics if name.startswith("completions/")]:
            del metrics[name]
        groups = self.args.generation_batch_size // self.num_generations
        if "skipped_groups" in metrics and min(metrics["skipped_groups"]) == groups:
            logger.warning(
                f"step {self.state.global_step}: nothing was learned since the last log, as the rewards were equal in "
                "each of the groups; raise `num_generations` or `temperature`, or add a reward that differs more."
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
        """Ranked item indices `[batch, listed]` and targets `[batch]`, by constrained beam search."""
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
        """Returns ranking metrics, and how widely the lists spread over the catalogue."""
        return rank(prediction) | spread_metrics(prediction.predictions, self.item_counts)

    def _init_training_state(self, *args, **kwargs) -> tuple[int, int]:
        position = super()._init_training_state(*args, **kwargs)
        self._step = self.state.global_step * self.args.gradient_accumulation_steps  # where new completions are due
        self._buffered_inputs = None
        return position

    # Records

    def prefixes(self) -> torch.LongTensor:
        """Returns the items' codes without suffix, `[n_items, levels]`."""
        return self.model.catalogue.item_codes[:, :-1]

    def validation_rows(self) -> list[dict[str, float]]:
        """Returns validation metrics by step, the starting model's (step 0) first."""
        by_step = validation_metrics(self.state.log_history)
        return [{"step": step, **metrics} for step, metrics in by_step.items()]

    def stage_entry(self) -> dict:
        """Returns this run's entry in a training record, with its rewards and the metrics before it."""
        weighted = zip(self.reward_weights.tolist(), self.reward_func_names)
        entry = super().stage_entry() | {"rewards": " + ".join(f"{weight:g} {name}" for weight, name in weighted)}
        before = validation_metrics(self.state.log_history).get(0)
        return entry | ({} if before is None else {"validation_before": before})


def name_of(reward: Callable) -> str:
    """What a reward is called in logs: its own name, or its class's."""
    return getattr(reward, "__name__", type(reward).__name__)


def checked(reward: Callable) -> Callable:
    """A reward, a coroutine too, whose result must be a list, whose length TRL then checks."""
    if isinstance(reward, (str, torch.nn.Module)):
        raise ValueError(
            f"a reward is a {type(reward).__name__}; models that score text can't read items: give a function."
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
