import json
from pathlib import Path

import pytest
import torch
from file_modes import umask, unusual_modes
from safetensors.torch import load_file, save_file
from tiny_models import RECIPE, make_model, random_codes
from transformers import AutoModel, AutoModelForSeq2SeqLM, pipeline

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration, RQVAEConfig, RQVAEModel, build_recommender
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord


def test_round_trip_is_exact(model, tmp_path):
    model.save_pretrained(tmp_path)
    for cls in (ETEGRecForConditionalGeneration, AutoModel, AutoModelForSeq2SeqLM):
        copy = cls.from_pretrained(tmp_path, trust_remote_code=True)
        state = copy.state_dict()
        assert state.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name]), name
        assert copy.encoder.embed_tokens.weight is copy.shared.weight
        assert copy.config.rqvae_config.input_size == 12
        history = model.catalogue.item_tokens[[1, 2]].flatten().unsqueeze(0)
        for mine, theirs in zip(model.recommend(history), copy.eval().recommend(history)):
            torch.testing.assert_close(
                mine, theirs, atol=1e-6, rtol=0
            )  # where weights lie in memory moves the last bit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "kind", [{"encoder_attention": "causal"}, {"reads_items": True, "constrained_softmax": True}, RECIPE]
)
def test_a_model_stays_of_its_kind(kind, dtype, tmp_path):
    model = make_model(random_codes(40, 3, 8), 8, **kind).to(dtype)
    model.save_pretrained(tmp_path)
    history = model.catalogue.item_tokens[[1, 2, 3]].flatten().unsqueeze(0)
    items, scores = model.recommend(history)
    for cls in (ETEGRecForConditionalGeneration, AutoModel):
        loaded, info = cls.from_pretrained(tmp_path, trust_remote_code=True, output_loading_info=True)
        assert not any(info.values())
        assert loaded.dtype == dtype
        state = loaded.state_dict()
        for name, tensor in model.state_dict().items():
            assert torch.equal(state[name], tensor), name
        found, found_scores = loaded.eval().recommend(history)
        assert torch.equal(found, items)
        torch.testing.assert_close(found_scores, scores, atol=1e-6, rtol=0)


def test_embeddings_can_stay_out_of_a_checkpoint(model, tmp_path):
    model.config.has_semantic_embedding = False
    model.catalogue.semantic_embedding = None
    model.save_pretrained(tmp_path)
    copy = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    assert copy.catalogue.semantic_embedding is None
    assert torch.equal(copy.catalogue.item_tokens, model.catalogue.item_tokens)
    with pytest.raises(ValueError, match="`has_semantic_embedding` is False"):
        copy.catalogue.set_semantic_embedding(torch.zeros(40, 12))


def test_weights_are_safetensors_and_nothing_is_pickled(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes == {".safetensors", ".json", ".py"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}


def test_a_loaded_configuration_keeps_its_pipeline_for_those_without_the_package(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
    assert set(saved) == {"sequential-recommendation"}
    config = ETEGRecConfig.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["custom_pipelines"] == saved


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_saved_files_have_the_modes_that_the_umask_gives(model, tokenizer, tmp_path, mask):
    with umask(mask):
        model.save_pretrained(tmp_path / "alone", max_shard_size="40KB")
        model.item_tokenizer.save_pretrained(tmp_path / "rqvae")
        save_model_folder(tmp_path / "whole", model, tokenizer, TrainingRecord())
    assert len(list(tmp_path.glob("alone/*.safetensors"))) > 1
    assert unusual_modes(tmp_path, mask) == {}


def test_a_folder_of_an_earlier_version_loads(model, tokenizer, folder):
    """Before titles, pipeline and imported codes: none of their fields and files."""
    config = json.loads((Path(folder) / "config.json").read_text())
    for name in ("custom_pipelines", "has_item_tokenizer"):
        del config[name]
    del config["auto_map"]["AutoModelForSeq2SeqLM"]
    (Path(folder) / "config.json").write_text(json.dumps(config))
    for name in ("item_titles.json", "training_record.json", "README.md", "pipeline_etegrec.py"):
        (Path(folder) / name).unlink()
    old, names = load_recommender(folder)
    assert names.item_titles == {}
    assert torch.equal(old.catalogue.item_tokens, model.catalogue.item_tokens)
    assert pipeline("sequential-recommendation", model=old, tokenizer=names)(["i1"], top_k=1)[0]["score"] < 0


def test_tables_with_their_earlier_names_are_read_and_saved_anew(codes, tmp_path):
    """In folders and in training checkpoints.

    Earlier, tables were attributes of the model itself, and an item had one vector.
    """
    kind = RECIPE | {"item_ensemble": 1, "num_transitions": 2}
    model = make_model(codes, 8, **kind)
    model.catalogue.set_transitions(torch.randint(1, 41, (40, 2)), torch.rand(40, 2))
    model.remove_items(torch.tensor([7]))
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["catalogue.item_counts"]  # which nobody counted then
    earlier = {name.removeprefix("catalogue."): tensor for name, tensor in state.items()}
    earlier = {name.replace("members.0.", ""): tensor for name, tensor in earlier.items()}
    assert len(earlier.keys() - state.keys()) == 11
    save_file(earlier, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read, info = ETEGRecForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not read.catalogue.item_counts.any()
    resumed = make_model(codes.flip(0), 8, seed=1, **kind)
    resumed.load_state_dict(earlier, strict=False)
    inputs = {"input_ids": model.catalogue.item_tokens[[3]], "transition_weight": 0.5, "exclude_history": True}
    for other in (read, resumed):
        for found, expected in zip(other.recommend(**inputs), model.recommend(**inputs)):
            torch.testing.assert_close(found, expected)
    other = ETEGRecForConditionalGeneration.from_pretrained(tmp_path, key_mapping={"^unknown$": "shared.weight"})
    assert other.catalogue.item_tokens.equal(read.catalogue.item_tokens)
    read.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again/model.safetensors").keys() == state.keys() | {"catalogue.item_counts"}


def test_a_checkpoint_with_equal_codes_is_an_error(model, tmp_path):
    model.catalogue.item_tokens[2] = model.catalogue.item_tokens[1]
    model.save_pretrained(tmp_path)
    copy = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="items 1 and 2 share the codes"):
        copy.recommend(copy.catalogue.item_tokens[[3]])


def test_a_configuration_keeps_nothing_of_the_run_that_made_it(tmp_path):
    RQVAEModel(RQVAEConfig(input_size=12, hidden_sizes=[16], latent_size=8, num_levels=2, codebook_size=8)
               ).save_pretrained(tmp_path / "somebody")  # fmt: skip
    tokenizer = RQVAEModel.from_pretrained(tmp_path / "somebody")
    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    model = build_recommender(tokenizer, torch.randn(9, 12), **sizes)
    model.config.use_cache = False  # as Trainer does
    for folder in (tmp_path / "model", tmp_path / "again"):
        model.save_pretrained(folder)
        saved = json.loads((folder / "config.json").read_text())
        assert saved["use_cache"] is True
        assert saved["rqvae_config"].keys() == {
            "model_type", "input_size", "hidden_sizes", "latent_size", "num_levels", "codebook_size",
            "commitment_weight", "quantization_weight", "distance",
        }  # fmt: skip
        assert "somebody" not in (folder / "config.json").read_text()
        model = ETEGRecForConditionalGeneration.from_pretrained(folder)
        assert model.config.use_cache
        assert model.config.rqvae_config.hidden_sizes == [16]
        assert model.config.rqvae_config.input_size == 12


def test_the_cache_of_a_process_can_be_turned_off():
    config = ETEGRecConfig(use_cache=False)
    assert not config.use_cache
    assert config.to_dict()["use_cache"] is True


def test_a_folder_that_holds_a_path_is_saved_without(model, tmp_path):
    """Earlier versions saved such a path."""
    model.save_pretrained(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    config["rqvae_config"] |= {"_name_or_path": "/home/somebody/tokenizer", "architectures": ["RQVAEModel"]}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config | {"use_cache": False}))
    ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "old").save_pretrained(tmp_path / "new")
    saved = (tmp_path / "new" / "config.json").read_text()
    assert "somebody" not in saved
    assert json.loads(saved)["use_cache"] is True
