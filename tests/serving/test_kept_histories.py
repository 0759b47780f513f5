"""Kept encoder states change no answer, and only those of the same user and model are used again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback_server import serving
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.serving.kept_histories import KeptHistories
from etegrec_hf.serving.loaded_model import LoadedModel
from etegrec_hf.serving.options import ServeOptions

HISTORY = [f"i{1 + 7 * step % 40}" for step in range(14)]  # longer than the 10 items that are read


@pytest.fixture(scope="module", params=["codes", "items"])
def causal(request, tmp_path_factory) -> str:
    """A recommender with a causal encoder that reads codes, or with all that the recipes add."""
    codes = random_codes(40, 3, 8)
    config = RECIPE if request.param == "items" else {"encoder_attention": "causal"}
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], codes, 8, max_history=10)
    folder = tmp_path_factory.mktemp("causal") / "model"
    save_model_folder(folder, make_model(codes, 8, max_history=10, **config), tokenizer, TrainingRecord())
    return str(folder)


@pytest.fixture(scope="module")
def loaded(causal) -> LoadedModel:
    return LoadedModel.load(Path(causal), "one", ServeOptions())


def assert_alike(found: list[dict], wanted: list[dict]) -> None:
    assert [item["item_id"] for item in found] == [item["item_id"] for item in wanted]
    assert [item["score"] for item in found] == pytest.approx([item["score"] for item in wanted], abs=1e-4)


def test_growing_histories_get_the_pipelines_lists(causal, loaded):
    """Histories grow by 0 to 3 items, beyond the items that are read, and one user begins anew."""
    lengths = [1, 2, 2, 5, 8, 10, 11, 14, 3]
    with serving(causal, reload_seconds=0, max_users=10, max_wait=0) as client:
        for length in lengths:
            for options in ({}, {"exclude_history": True, "top_k": 25, "num_beams": 25}, {"exclude": ["i5", "i7"]}):
                status, answer = client.recommend(history=HISTORY[:length], user_id="me", **options)
                assert status == 200, answer
                assert_alike(answer["items"], loaded.pipeline({"history": HISTORY[:length]}, **options))
        kept = client.service.batcher.kept
        assert kept.n_extended > 2 * len(lengths)
        assert client.metric("etegrec_kept_users") == 1
        before = kept.n_extended
        status, answer = client.recommend(history=HISTORY[:4], user_id="me", allowed=["i1", "i2"])
        assert {item["item_id"] for item in answer["items"]} == {"i1", "i2"}
        assert client.recommend(history=[], user_id="me", on_empty="empty")[1]["items"] == []
        assert kept.n_extended == before
        assert client.recommend(histories=[["i1"]], user_id="me")[0] == 422


def test_users_at_once(causal, loaded):
    with serving(causal, reload_seconds=0, max_users=4, max_wait=20) as client, ThreadPoolExecutor(12) as threads:
        for grown in range(1, 5):
            start = threading.Barrier(12)

            def ask(number: int, grown=grown, start=start) -> dict:
                start.wait()
                user = {} if number % 3 == 2 else {"user_id": f"u{number}"}
                return client.recommend(history=HISTORY[number % 5 : number % 5 + grown], **user)[1]

            wanted = loaded.pipeline([HISTORY[number % 5 : number % 5 + grown] for number in range(12)])
            for found, lists in zip(threads.map(ask, range(12)), wanted):
                assert_alike(found["items"], lists)
        assert client.metric("etegrec_kept_users") == 4


def test_those_that_were_asked_for_last_are_kept(loaded):
    other = LoadedModel(loaded.pipeline, loaded.finder, loaded.kinds, "two")
    kept = KeptHistories(2)

    def asked(user: str, n_items: int, model: LoadedModel = loaded) -> int:
        """Returns the number of histories that were extended."""
        before = kept.n_extended
        kept.encode(model, [user], [loaded.pipeline.tokenizer([HISTORY[:n_items]], return_tensors="pt").input_ids])
        return kept.n_extended - before

    assert [asked("a", 2), asked("a", 3), asked("b", 2), asked("a", 4)] == [0, 1, 0, 1]
    assert asked("c", 2) == 0  # in the place of b
    assert [asked("b", 3), asked("c", 3)] == [0, 1]
    assert [asked("c", 2), asked("c", 2), asked("c", 3, other)] == [0, 1, 0]
    assert len(kept) == 2


def test_other_encoders_keep_nothing(folder):
    with serving(folder, reload_seconds=0, max_users=4) as client:
        for length in (1, 2):
            assert client.recommend(history=HISTORY[:length], user_id="me")[0] == 200
        assert len(client.service.batcher.kept) == 0
