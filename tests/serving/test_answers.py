"""Answers over HTTP are those of the pipeline, whatever else is asked at the same time."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from loopback_server import serving, wait_until
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.models.pipeline_etegrec import SequentialRecommendationPipeline
from etegrec_hf.serving import batching


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    """A recommender with counts and transitions, so that every option does something."""
    codes = random_codes(40, 3, 8)
    model = make_model(codes, 8, num_transitions=5)
    model.catalogue.set_item_counts(torch.arange(40).fmod(13))
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(1, 41, (40, 5), generator=generator)
    model.catalogue.set_transitions(targets, torch.rand(40, 5, generator=generator))
    titles = {"i3": "Third", "i14": "Amber guitar", "i5": "Guitar strings"}
    tokenizer = ETEGRecTokenizer.from_item_codes(
        [f"i{row}" for row in range(1, 41)], codes, 8, max_history=10, item_titles=titles
    )
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model_folder(folder, model, tokenizer, TrainingRecord())
    return str(folder)


@pytest.fixture(scope="module")
def pipeline(made) -> SequentialRecommendationPipeline:
    model, tokenizer = load_recommender(made)
    return SequentialRecommendationPipeline(model=model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def client(made):
    with serving(made, reload_seconds=0, max_wait=20) as client:
        yield client


def assert_alike(found: list[dict], wanted: list[dict]) -> None:
    """Checks that items are the same, and that scores differ only by rounding in a padded batch."""
    assert [{**item, "score": 0} for item in found] == [{**item, "score": 0} for item in wanted]
    for item, other in zip(found, wanted):
        assert item["score"] == pytest.approx(other["score"], abs=1e-4)


OPTIONS = [
    {},
    {"top_k": 3},
    {"top_k": 40, "num_beams": 40},
    {"exclude": ["i1", "i2", "i3", "i4"]},
    {"allowed": ["i5", "i14", "i3"], "top_k": 5},
    {"allowed": ["i5", "i14"], "exclude": ["i5"]},
    {"exclude_history": True, "top_k": 36, "num_beams": 40},
    {"unknown": "skip"},
    {"rerank_weight": 2.0},
    {"transition_weight": 0.7},
    {"on_empty": "popular"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_is_the_pipelines(client, pipeline, options):
    history = ["i4", "i9", "i9"] + (["gone"] if "unknown" in options else [])
    status, answer = client.recommend(history=history, **options)
    assert status == 200, answer
    wanted = pipeline({"history": history}, **options)
    assert wanted
    assert_alike(answer["items"], wanted)


def test_histories_of_many_users(client, pipeline):
    histories = [["i4"], ["i9", "i3", "i3"], [], [f"i{row}" for row in range(1, 31)]]
    exclude = [["i1"], [], ["i12"], ["i40"]]
    for on_empty in ("empty", "popular"):
        options = {"top_k": 4, "on_empty": on_empty, "exclude_history": True}
        status, answer = client.recommend(histories=histories, exclude=exclude, **options)
        assert status == 200, answer
        for found, wanted in zip(answer["lists"], pipeline(histories, exclude=exclude, **options), strict=True):
            assert_alike(found, wanted)
    assert client.recommend(histories=[])[1]["lists"] == []


def test_many_at_once_get_their_own_answers_in_few_batches(client, pipeline):
    """Histories of all lengths, with three kinds of options, one of which is refused."""
    asked = [
        ([f"i{1 + (number * 7 + step) % 40}" for step in range(1 + number % 12)], number % 3) for number in range(24)
    ]
    kinds = [{}, {"top_k": 2, "exclude": ["i7"]}, {"top_k": 0}]
    wanted = [iter(pipeline([history for history, one in asked if one == kind], **kinds[kind])) for kind in (0, 1)]
    before = client.metric("etegrec_batch_rows_count")
    start = threading.Barrier(len(asked))

    def ask(history: list[str], kind: int) -> tuple[int, dict]:
        start.wait()
        return client.recommend(history=history, **kinds[kind])

    with ThreadPoolExecutor(len(asked)) as threads:
        answers = list(threads.map(lambda entry: ask(*entry), asked))
    for (_, kind), (status, answer) in zip(asked, answers):
        if kind == 2:
            assert (status, answer["field"]) == (422, "top_k")
        else:
            assert status == 200
            assert_alike(answer["items"], next(wanted[kind]))
    batches = client.metric("etegrec_batch_rows_count") - before
    assert 1 <= batches < 12, "16 rows, of which half at least shared a batch"


def test_histories_of_like_length_share_a_batch(made, monkeypatch):
    """Six histories arrive while another one is decoded: they have 3 and 30 tokens in turns, and 10 beams."""
    go_on, begun, batches = threading.Event(), threading.Event(), []
    decode = batching.decode

    def recording(batch):
        batches.append([row.n_tokens for row in batch])
        begun.set()
        assert go_on.wait(20)
        return decode(batch)

    monkeypatch.setattr(batching, "decode", recording)
    options = {"reload_seconds": 0, "max_batch_tokens": 200, "max_wait": 0, "threads": 1}
    with serving(made, **options) as client, ThreadPoolExecutor(7) as threads:
        asked = [threads.submit(client.recommend, history=["i4", "i5"], num_beams=10)]
        assert begun.wait(20)
        for number, length in enumerate([1, 10] * 3, start=1):
            asked.append(threads.submit(client.recommend, history=["i4"] * length, num_beams=10))
            wait_until(lambda number=number: client.metric("etegrec_queue_rows") == number)
        go_on.set()
        assert [answer.result()[0] for answer in asked] == [200] * 7
    assert batches == [[16], [13, 13, 13], [40, 40, 40]]


def test_each_thread_decodes_a_batch_of_its_own(made, monkeypatch):
    """One thread decodes the history `i4` until the second thread has answered histories that came later."""
    go_on, begun, cores = threading.Event(), threading.Event(), []
    decode = batching.decode

    def slow(batch):
        cores.append(torch.get_num_threads())
        if batch[0].n_tokens == 13:
            begun.set()
            assert go_on.wait(20)
        return decode(batch)

    monkeypatch.setattr(batching, "decode", slow)
    with serving(made, reload_seconds=0, max_wait=0, threads=2) as client, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(client.recommend, history=["i4"], num_beams=10)
        assert begun.wait(20)
        for _ in range(2):
            assert client.recommend(history=["i4", "i5"], num_beams=10)[0] == 200
        assert not asked.done()
        go_on.set()
        assert asked.result()[0] == 200
    assert cores == [1, 1, 1]


def test_similar_items_and_items_by_words(client):
    status, answer = client.get("/items?query=guitar&limit=1")
    assert status == 200
    assert answer["items"] == [{"item_id": "i5", "title": "Guitar strings"}]
    assert answer["total"] == 2
    status, answer = client.get("/similar?item_id=i4&limit=3")
    found = client.service.slot.model.finder.similar("i4", 3)
    assert [item["item_id"] for item in answer["items"]] == found.item_ids
    assert (answer["total"], answer["shared_codes"]) == (found.total, found.shared_codes)
    assert client.get("/similar?item_id=i99")[0] == 404
    for path, field in [
        ("/items", "query"),
        ("/similar?item_id=i4&limit=0", "limit"),
        ("/items?query=a&limit=x", "limit"),
    ]:
        status, answer = client.get(path)
        assert (status, answer["field"]) == (422, field)
    status, answer = client.get("/items?query=guitar&top_k=1")
    assert (status, answer["field"]) == (422, "top_k")
    assert answer["error"] == "there is no field `top_k`; choose among query, limit."
    assert "did you mean `item_id`" in client.get("/similar?item_ids=i4&item_id=i4")[1]["error"]


def test_ids_that_are_excluded_for_all_histories_are_counted_once(made):
    with serving(made, reload_seconds=0) as client:
        client.recommend(histories=[["i4"], ["i5"], ["i6"]], exclude=["gone", "i7"], unknown="skip", top_k=2)
        assert client.metric("etegrec_unknown_ids_total") == 1
        client.recommend(histories=[["i4"], ["i5"]], exclude=[["gone"], ["gone", "i7"]], unknown="skip", top_k=2)
        assert client.metric("etegrec_unknown_ids_total") == 3


def test_figures_of_what_was_answered(made):
    with serving(made, reload_seconds=0) as client:
        client.recommend(histories=[["i4"], [], ["i4", "gone"]], unknown="skip", on_empty="popular", top_k=2)
        client.recommend(history=[], on_empty="empty")
        client.recommend(history=["gone", "away"])
        client.recommend(history=["i4"], allowed=["i13", "i26", "i5"], top_k=3)  # the first has no interaction
        assert client.metric('etegrec_lists_total{answer="model"}') == 3
        assert client.metric('etegrec_lists_total{answer="popular"}') == 1
        assert client.metric('etegrec_lists_total{answer="empty"}') == 1
        assert client.metric("etegrec_unknown_ids_total") == 3
        assert client.metric('etegrec_requests_total{path="/recommend",status="200"}') == 3
        assert client.metric('etegrec_requests_total{path="/recommend",status="422"}') == 1
        assert client.metric("etegrec_batch_rows_sum") == 5
        kinds = {kind: client.metric(f'etegrec_items_total{{kind="{kind}"}}') for kind in ("cold", "popular", "other")}
        assert sum(kinds.values()) == 3 * 2 + 2 + 1
        assert client.metric("etegrec_queue_rows") == 0


def test_the_answer_is_json_with_the_models_revision(client):
    _, ready = client.get("/ready")
    assert ready == {"ready": True, "revision": client.service.slot.model.revision, "error": None}
    assert client.recommend(history=["i4"])[1]["revision"] == ready["revision"]
    assert client.get("/health") == (200, {"alive": True})
    status, _, body = client.request("GET", "/openapi.json")
    assert status == 200
    paths = json.loads(body)["paths"]
    assert set(paths) == {"/recommend", "/items", "/similar", "/health", "/ready", "/metrics"}
    assert {part["name"] for part in paths["/items"]["get"]["parameters"]} == {"query", "limit"}
