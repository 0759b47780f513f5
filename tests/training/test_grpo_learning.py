"""Reinforcement learning makes recommendations better: on made-up data, from an under-trained checkpoint."""

import pytest
import torch

from etegrec_hf import (
    ETEGRecGRPOConfig,
    ETEGRecGRPOTrainer,
    ETEGRecTrainer,
    FinetuningArguments,
    PreparedDataset,
    RankReward,
    RQVAEConfig,
    RQVAEModel,
    SequenceDataset,
    build_recommender,
)
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks

COMMON = {"num_beams": 20, "use_cpu": True, "disable_tqdm": True, "report_to": []}
SIZES = {"d_model": 32, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 1}


def under_trained(data: PreparedDataset, folder, seed: int) -> ETEGRecTrainer:
    """A finetuning of 20 steps."""
    torch.manual_seed(seed)
    sizes = {"hidden_sizes": (16,), "latent_size": 8, "num_levels": 2, "codebook_size": 16}
    item_tokenizer = RQVAEModel(RQVAEConfig(input_size=data.embeddings.shape[1], **sizes))
    initialize_codebooks(item_tokenizer, torch.from_numpy(data.embeddings), seed)
    model = build_recommender(item_tokenizer, torch.from_numpy(data.embeddings), **SIZES, dropout_rate=0.0)
    options = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    arguments = FinetuningArguments(
        str(folder),
        max_steps=20,
        per_device_train_batch_size=128,
        learning_rate=3e-3,
        early_stopping_patience=None,
        seed=seed,
        **options,
        **COMMON,
    )
    train = SequenceDataset.for_training(data.train, 20)
    validation = SequenceDataset.for_evaluation(data.validation, 20)
    trainer = ETEGRecTrainer(model, arguments, data.item_ids, train, eval_dataset=validation)
    trainer.train()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_validation_ndcg_rises_from_an_under_trained_checkpoint(tmp_path, seed):
    SyntheticProcess(n_users=600, n_items=120, n_clusters=6, width=12, seed=seed).write(tmp_path / "data")
    data = PreparedDataset.load(tmp_path / "data")
    start = under_trained(data, tmp_path / "finetuned", seed)
    arguments = ETEGRecGRPOConfig(
        str(tmp_path / "rewarded"),
        rollout="beam",
        scale_rewards="none",
        per_device_train_batch_size=1024,
        learning_rate=1e-3,
        beta=0.01,
        max_steps=40,
        eval_steps=20,
        save_steps=20,
        seed=seed,
        **COMMON,
    )
    run = ETEGRecGRPOTrainer(
        start.model,
        RankReward(arguments.num_generations),
        arguments,
        start.train_dataset,
        start.eval_dataset,
        processing_class=start.processing_class,
    )
    run.train()
    before, *_, after = run.validation_rows()
    assert after["ndcg@10"] > 1.02 * before["ndcg@10"], run.validation_rows()
    assert after["recall@10"] > before["recall@10"]
    assert after["coverage@10"] > 0.7 * before["coverage@10"], "not only sharper"
    assert run.evaluate()["eval_ndcg@10"] == pytest.approx(run.state.best_metric)
