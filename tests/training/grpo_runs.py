"""Tiny runs of reinforcement learning, for the tests in this folder and for the processes that they start."""

import torch
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecGRPOConfig, ETEGRecGRPOTrainer, ETEGRecTokenizer, HitReward, SemanticReward
from etegrec_hf.data.sequences import SequenceDataset

WITHOUT_EVALUATION = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
}


def tiny_model(prepared, codebook_size: int = 8, **sizes):
    codes = random_codes(prepared.n_items, 3, codebook_size)
    model = make_model(codes, codebook_size, **({"dropout_rate": 0.3} | sizes))
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    return model


def make_trainer(
    prepared, folder, rewards=None, model=None, trainer=ETEGRecGRPOTrainer, train=None, evaluated=None, **options
) -> ETEGRecGRPOTrainer:
    """A trainer of a tiny recommender on the tiny data: 8 histories a step, in groups of 4, rewards `hit` and
    `semantic`."""
    model = tiny_model(prepared) if model is None else model
    defaults = {
        "per_device_train_batch_size": 32,
        "num_generations": 4,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "logging_steps": 1,
        "eval_steps": 2,
        "save_steps": 2,
        "num_beams": 20,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": [],
        "seed": 1,
    }
    codes, size = model.catalogue.item_codes, model.config.codebook_size
    return trainer(
        model,
        [HitReward(), SemanticReward(model)] if rewards is None else rewards,
        ETEGRecGRPOConfig(str(folder), **(defaults | options)),
        SequenceDataset.for_training(prepared.train, 20) if train is None else train,
        SequenceDataset.for_evaluation(prepared.validation, 20) if evaluated is None else evaluated,
        processing_class=ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, size, max_history=20),
    )


def logged(trainer, name: str) -> list:
    """Returns the values that were logged under a name, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def by_place(completions, **columns) -> list[float]:
    """Differs within every group."""
    return [float(place % 4) for place in range(len(completions))]


class Spy(ETEGRecGRPOTrainer):
    """Keeps the inputs of each loss, what was scored for it, and what was rolled out."""

    def __init__(self, *args, **kwargs):
        self.losses, self.scores, self.rolled_out = [], [], []
        super().__init__(*args, **kwargs)

    def _generate_single_turn(self, *args, **kwargs):
        result = super()._generate_single_turn(*args, **kwargs)
        self.rolled_out.append(torch.tensor(self._log_probability))
        return result

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self.scores.append(result[0].detach())
        return result

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.losses.append(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)
