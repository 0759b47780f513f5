"""Training on mapped embeddings gives, bit for bit, what training on those in memory gives."""

import shutil

import pytest
import torch
from item_tokenizer_runs import make_trainer as make_rqvae_trainer
from transformers import TrainerCallback

from etegrec_hf import (
    ETEGRecForConditionalGeneration,
    ETEGRecTrainer,
    ETEGRecTrainingArguments,
    RQVAEConfig,
    RQVAEModel,
)
from etegrec_hf.data.mapped_embeddings import mapped_embeddings
from etegrec_hf.data.sequences import SequenceDataset, WholeSequenceDataset
from etegrec_hf.training.base.checkpoints import last_checkpoint
from etegrec_hf.training.item_tokenizer import codebooks
from etegrec_hf.training.item_tokenizer.item_codes import build_recommender, refresh_item_codes

SIZES = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def mapped(prepared_folder, tmp_path_factory) -> torch.Tensor:
    return mapped_embeddings(shutil.copytree(prepared_folder, tmp_path_factory.mktemp("mapped") / "data"))


def make_model(embeddings: torch.Tensor, in_memory: bool, **config) -> ETEGRecForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"input_size": 12, "hidden_sizes": [16], "latent_size": 8, "num_levels": 2, "codebook_size": 8}
    item_tokenizer = RQVAEModel(RQVAEConfig(**sizes))
    return build_recommender(item_tokenizer, embeddings, has_semantic_embedding=in_memory, **(SIZES | config))


def make_trainer(prepared, folder, mapped=None, attention="bidirectional", callbacks=()) -> ETEGRecTrainer:
    """Makes a trainer with embeddings in the model, or with mapped embeddings."""
    in_memory = mapped is None
    embeddings = torch.from_numpy(prepared.embeddings) if in_memory else mapped
    model = make_model(embeddings, in_memory, encoder_attention=attention)
    arguments = ETEGRecTrainingArguments(
        str(folder),
        num_train_epochs=4,
        warm_epochs=0,
        sia_weight=0.1,
        psa_weight=0.1,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        tokenizer_learning_rate=1e-2,
        num_beams=10,
        use_cpu=True,
        disable_tqdm=True,
        load_best_model_at_end=False,
        save_total_limit=2,  # the best one and the last
    )
    train = (
        WholeSequenceDataset(prepared.train, 20)
        if attention == "causal"
        else SequenceDataset.for_training(prepared.train, 20)
    )
    validation = SequenceDataset.for_evaluation(prepared.validation, 20)
    return ETEGRecTrainer(
        model,
        arguments,
        prepared.item_ids,
        train,
        eval_dataset=validation,
        semantic_embedding=mapped,
        callbacks=list(callbacks),
    )


def numbers_of(trainer) -> list[dict]:
    """Returns the logged values of a training, without times."""
    timed = ("runtime", "per_second", "total_flos")
    return [
        {name: value for name, value in entry.items() if not any(part in name for part in timed)}
        for entry in trainer.state.log_history
    ]


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name != "catalogue.semantic_embedding"}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_built_recommender_is_the_same_without_embeddings(prepared, mapped):
    with_them = make_model(torch.from_numpy(prepared.embeddings), True)
    without = make_model(mapped, False)
    assert without.catalogue.semantic_embedding is None
    assert_same(weights_of(with_them), weights_of(without))


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_training_is_the_same_bit_for_bit(prepared, mapped, tmp_path, attention):
    in_memory = make_trainer(prepared, tmp_path / "memory", attention=attention)
    in_memory.train()
    on_disk = make_trainer(prepared, tmp_path / "disk", mapped, attention)  # now: it sets the seed
    on_disk.train()
    assert_same(weights_of(in_memory.model), weights_of(on_disk.model))
    assert numbers_of(in_memory) == numbers_of(on_disk)
    assert {"loss_vq", "loss_sia", "loss_psa", "changed_codes"} <= set(numbers_of(on_disk)[0])
    assert numbers_of(on_disk)[0]["changed_codes"] > 0


@pytest.mark.slow
def test_resuming_on_mapped_embeddings_equals_no_interruption(prepared, mapped, tmp_path):
    class Stop(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.epoch >= 1  # after a tokenizer epoch

    whole = make_trainer(prepared, tmp_path / "whole", mapped)
    whole.train()
    make_trainer(prepared, tmp_path / "parts", mapped, callbacks=[Stop()]).train()
    again = make_trainer(prepared, tmp_path / "parts", mapped)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))
    assert_same(whole.model.state_dict(), again.model.state_dict())
    saved = ETEGRecForConditionalGeneration.from_pretrained(last_checkpoint(tmp_path / "parts"))
    assert saved.catalogue.semantic_embedding is None, "checkpoints come without embeddings"
    assert torch.equal(saved.catalogue.item_codes, again.model.catalogue.item_codes)
    with pytest.raises(ValueError, match=r"`has_semantic_embedding` is True, but False in the checkpoint"):
        make_trainer(prepared, tmp_path).train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))


def test_the_surplus_of_a_prefix_moves_as_before(mapped):
    """All items in one place, so that most of them are moved to their next nearest code."""
    alike = mapped[:1] + 1e-3 * mapped
    in_memory, on_disk = make_model(alike, True), make_model(alike, False)
    assert torch.equal(in_memory.catalogue.item_codes, on_disk.catalogue.item_codes)
    assert len(on_disk.catalogue.item_codes[:, 1].unique()) == 8
    with pytest.raises(ValueError, match=r"holds no `semantic_embedding`; load .*, or give `embeddings`"):
        refresh_item_codes(on_disk)


def test_embeddings_that_do_not_fit_are_an_error(prepared, mapped, tmp_path):
    arguments = ETEGRecTrainingArguments(str(tmp_path), num_train_epochs=2, use_cpu=True)
    broken = mapped.clone()
    broken[7, 3] = torch.nan
    without = make_model(mapped, False)
    for model, embeddings, message in (
        (
            make_model(mapped, True),
            mapped,
            "`semantic_embedding` is given, but the model holds embeddings already; leave",
        ),
        (without, mapped[1:], r"`embeddings` has shape \(59, 12\); expected \(60, 12\)"),
        (without, broken, "`embeddings` holds NaN or infinity, first at item index 8; repair that"),
        (without, None, "holds no `semantic_embedding`, .* or give `semantic_embedding` to the trainer"),
    ):
        with pytest.raises(ValueError, match=message):
            ETEGRecTrainer(model, arguments, prepared.item_ids, None, semantic_embedding=embeddings)
    with pytest.raises(ValueError, match="`embeddings` holds NaN or infinity, first at item index 8"):
        make_model(broken, False)


# The item tokenizer


def test_an_item_tokenizer_is_the_same_bit_for_bit(mapped, tmp_path):
    in_memory = make_rqvae_trainer(mapped[:, :8].clone(), tmp_path / "memory")
    in_memory.train()
    on_disk = make_rqvae_trainer(mapped[:, :8], tmp_path / "disk")
    on_disk.train()
    assert_same(in_memory.model.state_dict(), on_disk.model.state_dict())
    assert numbers_of(in_memory) == numbers_of(on_disk)


def tiny_rqvae(**config) -> RQVAEModel:
    torch.manual_seed(1)
    sizes = {"input_size": 8, "hidden_sizes": [16], "latent_size": 4, "num_levels": 3, "codebook_size": 16}
    return RQVAEModel(RQVAEConfig(**(sizes | config)))


@torch.no_grad()
def revive_at_once(model: RQVAEModel, embeddings: torch.Tensor) -> int:
    """`revive_dead_codes` with all latents in memory."""
    residual = model.encoder(embeddings)
    revived = 0
    for level, codebook in enumerate(model.quantizer.codebooks):
        codes = model.quantizer.closeness(residual, level).argmax(-1)
        dead = (codes.bincount(minlength=len(codebook)) == 0).nonzero().squeeze(1)[: len(residual)]
        codebook[dead] = residual[torch.randperm(len(residual))[: len(dead)]]
        revived += len(dead)
        residual = residual - codebook[model.quantizer.closeness(residual, level).argmax(-1)]
    return revived


@pytest.mark.parametrize("items", [5, 16, 100])
@pytest.mark.parametrize("batch_size", [8192, 7])
def test_codes_are_revived_batch_by_batch_as_at_once(items, batch_size, monkeypatch):
    monkeypatch.setattr(codebooks, "BATCH_SIZE", batch_size)
    at_once, by_batches = tiny_rqvae(), tiny_rqvae()
    embeddings = torch.randn(items, 8)
    for _ in range(2):  # the second time, few codes are dead
        torch.manual_seed(3)
        expected, random = revive_at_once(at_once, embeddings), torch.random.get_rng_state()
        torch.manual_seed(3)
        assert codebooks.revive_dead_codes(by_batches, embeddings) == expected > 0
        assert torch.equal(torch.random.get_rng_state(), random), "as many random numbers are drawn"
        compare = torch.equal if batch_size > items else torch.allclose
        assert compare(at_once.quantizer.codebooks, by_batches.quantizer.codebooks)


def test_a_huge_catalogues_codebooks_start_from_a_sample(monkeypatch):
    seen = []
    fit = codebooks.KMeans.fit
    monkeypatch.setattr(codebooks.KMeans, "fit", lambda self, rows: (seen.append(len(rows)), fit(self, rows))[1])
    monkeypatch.setattr(codebooks, "SAMPLES_A_CODE", 3)
    model, again, embeddings = tiny_rqvae(), tiny_rqvae(), torch.randn(500, 8)
    random = torch.random.get_rng_state()
    codebooks.initialize_codebooks(model, embeddings, seed=4)
    assert seen == [48] * 3
    assert torch.equal(torch.random.get_rng_state(), random)
    codebooks.initialize_codebooks(again, embeddings, seed=4)
    assert torch.equal(model.quantizer.codebooks, again.quantizer.codebooks)
    codebooks.initialize_codebooks(again, embeddings, seed=5)
    assert not torch.equal(model.quantizer.codebooks, again.quantizer.codebooks)
    codebooks.initialize_codebooks(again, embeddings[:48], seed=4)
    assert seen[-1] == 48, "all of them, where they are no more"
