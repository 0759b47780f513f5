"""The server gives the same answers with ONNX Runtime as with torch."""

import pytest
import torch
from loopback_server import serving
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import ETEGRecTokenizer, ServeOptions
from etegrec_hf.cli import serve
from etegrec_hf.cli.main import main
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.models.pipeline_etegrec import SequentialRecommendationPipeline

REQUESTS = [
    {},
    {"top_k": 40, "num_beams": 40},
    {"exclude": ["i1", "i2", "i3", "i4"]},
    {"allowed": ["i5", "i14", "i3"], "exclude": ["i5"], "top_k": 5},
    {"exclude_history": True, "transition_weight": 0.3, "rerank_weight": 1.0},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    codes = random_codes(40, 3, 8)
    model = make_model(codes, 8, **RECIPE | {"mixed_items": 0, "num_transitions": 4, "learns_transitions": True})
    model.catalogue.set_item_counts(torch.arange(40))
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], codes, 8, max_history=10)
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model_folder(folder, model, tokenizer, TrainingRecord())
    return str(folder)


@pytest.mark.slow
def test_answers_are_the_pipelines(folder):
    model, tokenizer = load_recommender(folder)
    pipeline = SequentialRecommendationPipeline(model=model, tokenizer=tokenizer)
    histories = [["i4", "i9", "i9"], ["i30"], []]
    with serving(folder, runtime="onnx", reload_seconds=0) as client:
        model = client.service.slot.current.pipeline.model
        model.recommend = None  # torch searches nothing
        served = client.service.slot.current.pipeline
        assert served(histories[0], max_batch_tokens=50) == served(histories[0])
        for options in REQUESTS:
            status, answer = client.recommend(histories=histories, on_empty="popular", **options)
            assert status == 200, answer
            wanted = pipeline([{"history": history} for history in histories], on_empty="popular", **options)
            for found, expected in zip(answer["lists"], wanted, strict=True):
                assert [item["item_id"] for item in found] == [item["item_id"] for item in expected]
                scores = [item["score"] for item in expected]
                assert [item["score"] for item in found] == pytest.approx(scores, abs=1e-4)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="`runtime` is 'onnx' and `max_users` is 3"):
        ServeOptions(runtime="onnx", max_users=3)
    with pytest.raises(ValueError, match="runtime"):
        ServeOptions(runtime="tensorflow")


def test_missing_packages_are_named_with_their_extra(folder, capsys, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "onnxruntime" else name)
    assert main(["serve", folder, "--runtime", "onnx"]) == 1
    assert "serving needs onnxruntime, which is not installed" in capsys.readouterr().err
