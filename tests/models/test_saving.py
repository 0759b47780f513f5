import json
from pathlib import Path

import pytest
import torch
from tiny_models import make_model, random_codes
from transformers import AutoModel, AutoModelForSeq2SeqLM, pipeline

from etegrec_hf import ETEGRecForConditionalGeneration
from etegrec_hf.hub.model_folder import load_recommender


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
        history = model.item_tokens[[1, 2]].flatten().unsqueeze(0)
        for mine, theirs in zip(model.recommend(history), copy.eval().recommend(history)):
            torch.testing.assert_close(
                mine, theirs, atol=1e-6, rtol=0
            )  # where weights lie in memory moves the last bit


@pytest.mark.parametrize("kind", [{"encoder_attention": "causal"}, {"reads_items": True, "constrained_softmax": True}])
def test_a_model_stays_of_its_kind(kind, tmp_path):
    model = make_model(random_codes(40, 3, 8), 8, **kind)
    model.save_pretrained(tmp_path)
    history = model.item_tokens[[1, 2, 3]].flatten().unsqueeze(0)
    items, scores = model.recommend(history)
    for cls in (ETEGRecForConditionalGeneration, AutoModel):
        found, found_scores = cls.from_pretrained(tmp_path, trust_remote_code=True).eval().recommend(history)
        assert torch.equal(found, items)
        torch.testing.assert_close(found_scores, scores, atol=1e-6, rtol=0)


def test_embeddings_can_stay_out_of_a_checkpoint(model, tmp_path):
    model.config.has_semantic_embedding = False
    model.semantic_embedding = None
    model.save_pretrained(tmp_path)
    copy = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    assert copy.semantic_embedding is None
    assert torch.equal(copy.item_tokens, model.item_tokens)
    with pytest.raises(ValueError, match="`has_semantic_embedding` is False"):
        copy.set_semantic_embedding(torch.zeros(40, 12))


def test_weights_are_safetensors_and_nothing_is_pickled(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes == {".safetensors", ".json", ".py"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}


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
    assert torch.equal(old.item_tokens, model.item_tokens)
    assert pipeline("sequential-recommendation", model=old, tokenizer=names)(["i1"], top_k=1)[0]["score"] < 0


def test_a_checkpoint_with_equal_codes_is_an_error(model, tmp_path):
    model.item_tokens[2] = model.item_tokens[1]
    model.save_pretrained(tmp_path)
    copy = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="items 1 and 2 share the codes"):
        copy.recommend(copy.item_tokens[[3]])
