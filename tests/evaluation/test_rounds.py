"""Rounds of users that are measured as long as there is time."""

import numpy as np
import pytest
from tiny_models import make_model, random_codes

from etegrec_hf import (
    ChosenSettings,
    ETEGRecTokenizer,
    EvaluateOptions,
    choose_settings,
    evaluate,
    strongest_transitions,
)
from etegrec_hf.evaluation import rounds
from etegrec_hf.evaluation.rounds import rounds_in_time


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that stands still until a test moves its only entry on."""
    now = [5.0]
    monkeypatch.setattr(rounds.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def recommender(prepared):
    """An untrained recommender that keeps transitions, and its tokenizer."""
    codes = random_codes(prepared.n_items, 3, 8)
    model = make_model(codes, 8, num_transitions=10)
    model.catalogue.set_transitions(*strongest_transitions(prepared, 10))
    return model, ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)


@pytest.mark.parametrize(
    ("n_rows", "seconds", "pace", "sizes"),
    [
        (1000, None, [1], [1000]),
        (60, 0.0, [1], [60]),  # fewer than a first round
        (1000, 0.0, [1], [64]),
        (1000, 400.0, [1], [64, 64, 128, 115]),  # .8 * (400 - 256) = 115, and then 29 seconds are left
        (1000, 400.0, [1, 2], [64, 64, 83]),  # .8 * (400 - 64 - 128) / 2 = 83, and then 42 seconds are left
        (1000, 10**6, [1], [64, 64, 128, 256, 488]),
    ],
    ids=str,
)
def test_as_many_rows_are_drawn_as_there_is_time_for(clock, n_rows, seconds, pace, sizes):
    """`pace` is seconds per row in each round; the last one lasts."""
    drawn = []
    for number, rows in enumerate(rounds_in_time(n_rows, seconds)):
        drawn.append(rows)
        clock[0] += len(rows) * pace[min(number, len(pace) - 1)]
    assert [len(rows) for rows in drawn] == sizes
    assert all((np.diff(rows) > 0).all() for rows in drawn)
    every = np.concatenate(drawn)
    assert len(set(every.tolist())) == len(every)
    assert set(every.tolist()) <= set(range(n_rows))
    if 64 <= len(every) < n_rows:
        assert abs(every.mean() / n_rows - 0.5) < 0.15, "rows from everywhere"


def test_an_evaluation_without_time_is_of_the_first_round(prepared, recommender, monkeypatch):
    monkeypatch.setattr(rounds, "FIRST", 30)
    options = EvaluateOptions(num_beams=10, batch_size=16)
    whole = evaluate(*recommender, prepared, options)
    some = evaluate(*recommender, prepared, options, seconds=0.0)
    rows = np.sort(np.random.default_rng(0).permutation(len(prepared.test))[:30])
    assert some.ranks.tolist() == whole.ranks[rows].tolist()
    assert some.metrics["recall@10"] == pytest.approx((some.ranks > 0).mean())
    for name, ranks in whole.baseline_ranks.items():
        assert some.baseline_ranks[name].tolist() == ranks[rows].tolist()
    assert (whole.protocol["users"], some.protocol["users"]) == (len(prepared.test), 30)
    assert some.protocol["data"]["test"] != whole.protocol["data"]["test"]
    timed = evaluate(*recommender, prepared, options, seconds=1e6)
    assert timed.ranks.tolist() == whole.ranks.tolist()
    assert timed.protocol == whole.protocol


def test_choices_on_parts_of_the_users_are_joined(prepared, recommender):
    options = EvaluateOptions(split="validation", num_beams=10, rerank_weight=0.0)
    whole = choose_settings(*recommender, prepared, options)
    parts = []
    places = np.split(np.arange(len(prepared.validation)), [37])
    for rows in places:
        part = type(prepared)(**(vars(prepared) | {"validation": prepared.validation.take(rows)}))
        parts.append(choose_settings(*recommender, part, options))
    joined = ChosenSettings.joined(parts, [len(rows) for rows in places])
    assert joined.settings == whole.settings
    assert [pytest.approx(row) for row in joined.tried] == whole.tried
    assert ChosenSettings.joined([whole], [7]) == whole
