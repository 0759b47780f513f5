"""Refusals of the server: JSON that names field, value and remedy, and never a trace."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback_server import serving, wait_until
from starlette.testclient import TestClient

from etegrec_hf.serving import batching
from etegrec_hf.serving.app import create_app
from etegrec_hf.serving.batching import Row
from etegrec_hf.serving.options import ServeOptions
from etegrec_hf.serving.server import serve

LIMITS = {"max_body": 2000, "max_histories": 3, "max_history": 12, "max_ids": 5, "max_top_k": 20, "max_num_beams": 30}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> str:
    """A recommender of the items i1 to i40."""
    from tiny_models import make_model, random_codes

    from etegrec_hf import ETEGRecTokenizer
    from etegrec_hf.hub.model_folder import save_model_folder
    from etegrec_hf.hub.training_record import TrainingRecord

    codes = random_codes(40, 3, 8)
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], codes, 8, max_history=10)
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model_folder(folder, make_model(codes, 8), tokenizer, TrainingRecord())
    return str(folder)


@pytest.fixture(scope="module")
def client(served):
    app = create_app(served, ServeOptions(reload_seconds=0, max_wait=0, **LIMITS))
    with TestClient(app) as client:
        wait_until(lambda: client.get("/ready").status_code == 200)
        yield client


REFUSED = [
    ({}, "history", "neither of `history` and `histories` is given; give one of them."),
    ({"history": ["i1"], "histories": [["i1"]]}, "history", "both of `history` and `histories` is given"),
    (
        {"history": ["i1", "gone"]},
        "history",
        "`history` holds 'gone', which isn't in the catalogue of 40 items; leave",
    ),
    ({"histories": [["i1"], ["gone"]]}, "histories[1]", "`histories[1]` holds 'gone'"),
    ({"history": []}, "history", "`history` holds no item of the catalogue; give one, or set `on_empty`"),
    ({"history": ["gone"], "unknown": "skip"}, "history", "holds no item"),
    ({"history": [3]}, "history[0]", "`history[0]` is 3; give text, in quotes."),
    ({"history": "i1"}, "history", "`history` is 'i1'; give a list, in brackets."),
    ({"history": ["i1"] * 13}, "history", "`history` holds 13 ids; send its last 12."),
    ({"histories": [["i1"], ["i1"] * 13]}, "histories[1]", "`histories[1]` holds 13 ids"),
    ({"histories": [["i1"]] * 4}, "histories", "`histories` holds 4; send at most 3 per request."),
    ({"history": ["i1"], "exclude": ["i1"] * 6}, "exclude", "`exclude` holds 6 ids; send at most 5."),
    ({"history": ["i1"], "exclude": ["gone"]}, "exclude", "`exclude` holds 'gone'"),
    ({"history": ["i1"], "exclude": [["i1"]]}, "exclude", "give ids, or one list per history of `histories`."),
    ({"histories": [["i1"]] * 2, "exclude": [["i1"]]}, "exclude", "`exclude` holds 1 list"),
    ({"histories": [["i1"]], "exclude": [["gone"]]}, "exclude[0]", "`exclude[0]` holds 'gone'"),
    ({"history": ["i1"], "allowed": ["gone"]}, "allowed", "`allowed` holds 'gone'"),
    ({"history": ["i1"], "top_k": 0}, "top_k", "`top_k` is 0; give 1 to 20."),
    ({"history": ["i1"], "top_k": 10**9}, "top_k", "`top_k` is 1000000000; give 1 to 20."),
    ({"history": ["i1"], "top_k": 10**30}, "top_k", "`top_k` is 1000000000000000000000000000000; "),
    ({"history": ["i1"], "top_k": True}, "top_k", "`top_k` is True; input should be a valid integer."),
    ({"history": ["i1"], "num_beams": 31}, "num_beams", "`num_beams` is 31; give 1 to 30."),
    ({"history": ["i1"], "num_beams": 5}, None, "a beam must be at least as wide as the list."),
    ({"history": ["i1"], "unknown": "pass"}, "unknown", "input should be 'error' or 'skip'."),
    ({"history": ["i1"], "on_empty": "popular"}, None, "this model holds no counts of its items"),
    ({"history": ["i1"], "transition_weight": 0.5}, None, "the model keeps no transitions"),
    ({"history": ["i1"], "rerank_weight": float("nan")}, None, "`rerank_weight` is nan; give a weight of 0 or more."),
    ({"history": ["i1"], "topk": 3}, "topk", "there is no field `topk`; did you mean `top_k`?"),
    ({"history": ["i1"], "top_k": float("nan")}, "top_k", "`top_k` is nan; "),
    ({"history": ["i1"], "top_k": float("inf")}, "top_k", "`top_k` is inf; "),
    ({"history": ["i1"], "foo": float("nan")}, "foo", "there is no field `foo`"),
    ({"history": float("nan")}, "history", "`history` is nan; give a list, in brackets."),
    ({"history": [float("nan")]}, "history[0]", "`history[0]` is nan; give text, in quotes."),
    ([1], "body", "`body` is a list of 1; input should be an object."),
]


@pytest.mark.parametrize(("request_body", "field", "message"), REFUSED, ids=str)
def test_a_wrong_request_is_named(client, request_body, field, message):
    answer = client.post("/recommend", content=json.dumps(request_body))
    assert answer.status_code == 422
    assert message in answer.json()["error"]
    assert answer.json().get("field") == field
    if isinstance(request_body, dict) and field in request_body and not isinstance(request_body[field], list):
        given = request_body[field]
        assert answer.json()["value"] in ((given,) if isinstance(given, str) else (given, repr(given)))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 1500, b'{"history": ["i1"]} x', b"\x00"])
def test_a_body_that_is_not_json(client, body):
    answer = client.post("/recommend", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body isn't JSON (")


def test_a_long_body_and_a_wrong_path(client):
    for length in (2001, 100_000, 50_000_000):
        answer = client.post("/recommend", content=b" " * length if length < 10**6 else iter([b" " * 10**5] * 500))
        assert answer.status_code == 413
        assert answer.json()["error"] == "the body has more than 2000 bytes; send fewer or shorter histories."
    assert client.get("/nothing").status_code == 404
    assert client.get("/recommend").status_code == 405
    assert client.get("/recommend").json()["error"] == "GET '/recommend': Method Not Allowed; use POST."
    assert "see /openapi.json" in client.get("/nothing").json()["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("i3"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
IDS = st.lists(st.sampled_from(["i1", "i2", "i40", "gone", ""]), max_size=14)
FIELDS = {
    "history": IDS | JSON,
    "histories": st.lists(IDS, max_size=4) | JSON,
    "exclude": IDS | st.lists(IDS, max_size=3) | JSON,
    "allowed": IDS | JSON,
    "user_id": st.text(max_size=3) | JSON,
    "top_k": st.integers(-1, 22) | JSON,
    "num_beams": st.integers(-1, 32) | JSON,
    "exclude_history": st.booleans() | JSON,
    "rerank_weight": st.floats() | JSON,
    "transition_weight": st.floats() | JSON,
    "unknown": st.sampled_from(["error", "skip"]) | JSON,
    "on_empty": st.sampled_from(["error", "empty", "popular"]) | JSON,
}
MOSTLY_RIGHT = st.fixed_dictionaries(
    {"history": IDS}, optional={"unknown": st.just("skip"), "on_empty": st.just("empty"), "top_k": st.integers(-1, 9)}
)
BODIES = (st.fixed_dictionaries({}, optional=FIELDS) | MOSTLY_RIGHT | JSON).map(lambda body: json.dumps(body).encode())


@settings(max_examples=150)
@given(body=BODIES | st.binary(max_size=50))
def test_no_body_is_an_internal_error(client, body):
    answer = client.post("/recommend", content=body)
    assert answer.status_code in (200, 400, 413, 422), body
    assert ("error" in answer.json()) == (answer.status_code != 200)


def test_an_internal_error_shows_a_number_that_the_log_has(served, monkeypatch, caplog):
    def broken(rows):
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(batching, "collated", broken)
    with TestClient(create_app(served, ServeOptions(reload_seconds=0)), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/ready").status_code == 200)
        with caplog.at_level(logging.ERROR, "etegrec.serving"):
            answer = client.post("/recommend", json={"history": ["i1"]})
    assert answer.status_code == 500
    number = answer.json()["error"].split()[2].rstrip(";")
    assert answer.json()["error"].startswith("internal error ")
    assert "secret" not in answer.text
    assert number in caplog.text
    assert "a secret of the house" in caplog.text


def test_a_row_that_fails_spoils_no_other_of_its_batch(served, monkeypatch):
    """The model itself fails for requests that exclude item 7."""
    with serving(served, reload_seconds=0, max_wait=300) as client:
        pipeline = client.service.slot.model.pipeline
        decoded, forward = [], pipeline.forward

        def sometimes(inputs, **options):
            decoded.append(len(inputs["exclude"]))
            if (inputs["exclude"] == 7).any():
                raise RuntimeError("broken")
            return forward(inputs, **options)

        monkeypatch.setattr(pipeline, "forward", sometimes)
        start = threading.Barrier(6)

        def ask(number: int) -> int:
            start.wait()
            return client.recommend(history=["i1"], exclude=["i7"] if number == 2 else [])[0]

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(ask, range(6))) == [200, 200, 500, 200, 200, 200]
        assert max(decoded) > 1, "some were decoded together"


def test_a_full_queue_refuses_and_then_answers_again(served, monkeypatch):
    """The model waits until the queue is full and one more request has come."""
    go_on, begun = threading.Event(), threading.Event()
    decode = batching.decode

    def slowly(batch: list[Row]):
        begun.set()
        assert go_on.wait(20)
        return decode(batch)

    monkeypatch.setattr(batching, "decode", slowly)
    with (
        serving(served, reload_seconds=0, max_queue=2, max_histories=2, max_wait=0) as client,
        ThreadPoolExecutor(3) as threads,
    ):
        first = threads.submit(client.recommend, history=["i1"])
        assert begun.wait(20)
        waiting = threads.submit(client.recommend, histories=[["i2"], ["i3"]])
        wait_until(lambda: client.metric("etegrec_queue_rows") == 2)
        status, headers, body = client.request("POST", "/recommend", b'{"history": ["i4"]}')
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(body)["error"].startswith("2 histories are waiting already; try again")
        go_on.set()
        assert first.result()[0] == waiting.result()[0] == 200
        assert client.recommend(history=["i4"])[0] == 200


def test_a_key(served, monkeypatch):
    monkeypatch.setenv("ETEGREC_API_KEY", "opensesame")
    with TestClient(create_app(served, ServeOptions(reload_seconds=0))) as client:
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert client.get("/health").status_code == 200
        right = [
            {"Authorization": "Bearer opensesame"},
            {"authorization": "bearer opensesame"},
            {"X-API-Key": "opensesame"},
        ]
        wrong = [
            {},
            {"Authorization": "opensesame"},
            {"Authorization": "Bearer opensesam"},
            {"X-API-Key": "Ã¶"},
            {"X-API-Key": ""},
        ]
        for path in ("/items?query=i1", "/metrics", "/openapi.json", "/docs", "/nothing"):
            for headers in wrong:
                answer = client.get(path, headers={name: value.encode() for name, value in headers.items()})
                assert answer.status_code == 401
                assert "`Authorization: Bearer KEY`" in answer.json()["error"]
                assert answer.headers["www-authenticate"] == "Bearer"
            for headers in right:
                assert client.get(path, headers=headers).status_code == (404 if path == "/nothing" else 200)


@pytest.mark.parametrize("key", ["", " "])
def test_a_key_that_is_empty_opens_nothing(served, key, monkeypatch):
    """As `ETEGREC_API_KEY=${SECRET}` makes it, if SECRET isn't set."""
    monkeypatch.setenv("ETEGREC_API_KEY", key)
    for start in (lambda: create_app(served), lambda: serve(served, ServeOptions(), "127.0.0.1", 0, workers=2)):
        with pytest.raises(ValueError, match=f"`ETEGREC_API_KEY` is '{key}', which is no key; set it to the key"):
            start()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_queue": 0}, "`max_queue` is 0; give 1 or more"),
        ({"max_wait": -1}, "`max_wait` is -1; give 0 or more."),
        ({"reload_seconds": float("inf")}, "`reload_seconds` is inf"),
        (
            {"max_queue": 10, "max_histories": 20},
            "`max_queue` is 10 and `max_histories` is 20; raise the first or lower",
        ),
        ({"max_num_beams": 20, "max_top_k": 50}, "`max_num_beams` is 20 and `max_top_k` is 50"),
    ],
)
def test_limits_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ServeOptions(**options)
