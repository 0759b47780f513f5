"""Settings of the search that belong to a model: saved with it, and followed where a call gives nothing else."""

import json

import pytest
import torch
from tiny_models import make_model
from transformers import pipeline

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration, SearchOptions, SearchSettings

OWN = {"num_beams": 12, "exclude_history": True, "rerank_weight": 2.0, "transition_weight": 0.4}
HISTORY = [5, 9, 2]


@pytest.fixture
def voting(codes):
    """A function that makes a recommender with votes and the given settings; its weights are always the same."""

    def make(settings=None):
        model = make_model(codes, 8, num_transitions=3, search_settings=settings)
        generator = torch.Generator().manual_seed(1)
        items = torch.randint(1, 41, (40, 3), generator=generator)
        model.catalogue.set_transitions(items, torch.rand(40, 3, generator=generator))
        return model

    return make


def lists(model, **options) -> torch.Tensor:
    """Items and scores of three histories, `[2, 3, top_k]`."""
    history = torch.tensor([HISTORY, [7, 7, 0], [31, 1, 40]])
    items, scores = model.recommend(**model.catalogue.inputs_from_items(history), **options)
    return torch.stack([items.float(), scores])


def test_given_goes_before_the_models_own_and_that_before_the_default(voting):
    bare, own, some = voting(), voting(OWN), voting({"transition_weight": 0.4})
    assert SearchOptions().for_model(bare) == SearchSettings(20, False, 0.0, 0.0)
    assert SearchOptions().for_model(own) == SearchSettings(**OWN)
    assert SearchOptions().for_model(some) == SearchSettings(20, False, 0.0, 0.4)
    given = {"num_beams": 11, "exclude_history": False, "rerank_weight": 0.0, "transition_weight": 0.0}
    for name, value in given.items():
        assert SearchOptions(**{name: value}).for_model(own) == SearchSettings(**OWN | {name: value}), name


def test_recommend_follows_the_models_own(voting):
    bare, own = voting(), voting(OWN)
    assert torch.equal(lists(own), lists(bare, **OWN))
    assert not torch.equal(lists(own), lists(bare))
    off = {"num_beams": 20, "exclude_history": False, "rerank_weight": 0.0, "transition_weight": 0.0}
    assert torch.equal(lists(own, **off), lists(bare))


def test_a_list_longer_than_the_models_own_beam_widens_it(voting):
    model = voting({"num_beams": 12})
    assert torch.equal(lists(model, top_k=30), lists(voting(), top_k=30, num_beams=30))
    with pytest.raises(ValueError, match="`num_beams` is 12 and `top_k` is 30; a beam must be at least as wide"):
        lists(model, top_k=30, num_beams=12)


def test_generating_and_drawing_know_no_settings(voting):
    bare, own = voting(), voting(OWN)
    inputs = bare.catalogue.inputs_from_items(torch.tensor([HISTORY]))
    assert torch.equal(own.generate(**inputs, num_beams=5), bare.generate(**inputs, num_beams=5))
    drawn = [model.sample_items(**inputs, generator=torch.Generator().manual_seed(0)) for model in (bare, own)]
    assert torch.equal(drawn[0][0], drawn[1][0])


def test_the_pipeline_follows_them(voting, tokenizer):
    bare, own = (
        pipeline("sequential-recommendation", model=voting(settings), tokenizer=tokenizer) for settings in (None, OWN)
    )
    histories = [[f"i{index}" for index in HISTORY], ["i7"]]
    assert own(histories) == bare(histories, **OWN)
    kept = {"exclude_history": False}
    assert own(histories, top_k=12, **kept) == bare(histories, top_k=12, **OWN | kept)
    assert own(histories, top_k=12, **kept) != own(histories, top_k=12)


def test_they_are_saved_and_loaded_with_the_model(voting, tmp_path):
    model = voting(OWN)
    model.save_pretrained(tmp_path / "own")
    assert json.loads((tmp_path / "own" / "config.json").read_text())["search_settings"] == OWN
    loaded = ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "own").eval()
    assert loaded.config.search_settings == OWN
    assert torch.equal(lists(loaded), lists(model))


def test_a_configuration_from_before_there_were_any_loads_unchanged(voting, tmp_path):
    voting().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = {name: value for name, value in json.loads(path.read_text()).items() if name != "search_settings"}
    path.write_text(json.dumps(saved))
    assert ETEGRecConfig.from_pretrained(tmp_path).search_settings == {}
    loaded = ETEGRecForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(lists(loaded), lists(voting(), num_beams=20))


@pytest.mark.parametrize(
    ("settings", "config", "message"),
    [
        (
            {"beams": 3},
            {},
            "`search_settings` has the unknown name 'beams'; choose among num_beams, exclude_history, rerank",
        ),
        ({"top_k": 3}, {}, "`search_settings` has the unknown name 'top_k'"),
        ({"num_beams": 0}, {}, "`num_beams` is 0; give 1 or more"),
        ({"num_beams": 2.5}, {}, r"`num_beams` is 2\.5; give a whole number"),
        ({"num_beams": None}, {}, "`num_beams` is None; give a whole number"),
        ({"exclude_history": 1}, {}, "`exclude_history` is 1; give True or False"),
        ({"rerank_weight": -1}, {}, "`rerank_weight` is -1; give a weight"),
        ({"transition_weight": 1.0}, {}, r"`transition_weight` is 1\.0; give a share"),
        ({"transition_weight": 0.5}, {}, r"has the `transition_weight` 0\.5, but `num_transitions` is 0.*; raise"),
        ({"rerank_weight": 4}, {"has_item_tokenizer": False}, "has the `rerank_weight` 4, but `has_item_tokenizer`"),
        (
            {"rerank_weight": 4},
            {"has_semantic_embedding": False},
            "but `has_semantic_embedding` is False.*; set `has_semantic_embedding` to True",
        ),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings, config, message):
    with pytest.raises(ValueError, match=message):
        ETEGRecConfig(search_settings=settings, **config)


def test_own_votes_that_were_never_counted_are_an_error_and_not_silent(codes):
    model = make_model(codes, 8, num_transitions=3, search_settings={"transition_weight": 0.5})
    with pytest.raises(ValueError, match=r"`transition_weight` is 0\.5, but the model keeps no transitions.*or 0 if"):
        lists(model)
    assert torch.equal(lists(model, transition_weight=0), lists(make_model(codes, 8, num_transitions=3)))
