import json
import subprocess
import sys
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecConfig, RQVAEConfig, RQVAEModel
from etegrec_hf.hub.conversion import convert_recommender
from etegrec_hf.hub.model_folder import load_model
from etegrec_hf.models.modeling_rqvae import check_item_tokenizer
from etegrec_hf.training.item_tokenizer.item_codes import (
    adler32,
    assign_item_codes,
    build_recommender,
    refresh_item_codes,
)

STRATEGY = st.sampled_from(["forge", "count", "balance"])


@st.composite
def prefixes(draw):
    """Crowded prefixes, often more than K items on one."""
    codebook_size, levels = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    code = st.tuples(*[st.integers(0, codebook_size - 1)] * levels)
    parents = draw(st.lists(code, min_size=1, max_size=codebook_size**2))
    return torch.tensor(parents), codebook_size


@given(prefixes(), STRATEGY, st.booleans())
def test_codes_are_unique_whatever_the_prefixes(catalogue, strategy, with_closeness):
    rows, codebook_size = catalogue
    closeness = torch.randn(len(rows), codebook_size)
    codes = assign_item_codes(rows, codebook_size, strategy, closeness.__getitem__ if with_closeness else None)
    assert codes.shape == (len(rows), rows.shape[1] + 1)
    assert len(codes.unique(dim=0)) == len(codes)
    assert codes.min() >= 0
    assert codes.max() < codebook_size
    assert torch.equal(codes[:, : rows.shape[1] - 1], rows[:, :-1]), "codes before the last level stay"


@given(prefixes())
def test_only_the_surplus_moves(catalogue):
    rows, codebook_size = catalogue
    codes = assign_item_codes(rows, codebook_size, "count")
    for prefix in rows.unique(dim=0):
        members = (rows == prefix).all(1).nonzero().flatten()[:codebook_size]
        assert (codes[members, :-1] == prefix).all()
    for prefix in codes[:, :-1].unique(dim=0):
        suffixes = codes[(codes[:, :-1] == prefix).all(1), -1]
        assert suffixes.tolist() == list(range(len(suffixes))), "counted in item order"


def test_forge_by_hand():
    prefixes = torch.tensor([[1, 2, 3], [4, 5, 6], [1, 2, 3], [1, 2, 3]])
    offset = zlib.adler32(bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])) % 8
    other = zlib.adler32(bytes([4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0])) % 8
    suffixes = assign_item_codes(prefixes, 8)[:, -1].tolist()
    assert suffixes == [offset, other, (offset + 1) % 8, (offset + 2) % 8]


def test_balance_deals_the_last_level_round_robin():
    prefixes = torch.tensor([[0, 1], [0, 1], [1, 0], [0, 1], [0, 0]])
    assert assign_item_codes(prefixes, 2, "balance").tolist() == [
        [0, 0, 0],
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 1],
        [0, 1, 1],
    ]


def test_surplus_takes_the_nearest_code_that_has_room():
    prefixes = torch.tensor([[3]] * 4 + [[2]] * 4 + [[3]])
    assert assign_item_codes(prefixes, 4, "count")[-1].tolist() == [1, 0], "2 is nearer than 1, but full"
    closeness = torch.zeros(9, 4)
    closeness[8] = torch.tensor([5.0, 1.0, 9.0, 9.0])
    assert assign_item_codes(prefixes, 4, "count", closeness.__getitem__)[-1].tolist() == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)), min_size=1))
def test_adler32_is_zlibs(rows):
    expected = [zlib.adler32(b"".join(code.to_bytes(4, "little") for code in row)) for row in rows]
    assert adler32(torch.tensor(rows)).tolist() == expected


@pytest.mark.slow
def test_another_process_assigns_the_same_codes():
    program = (
        "import torch; from etegrec_hf.training.item_tokenizer.item_codes import assign_item_codes;"
        "print(assign_item_codes(torch.tensor([[5, 9], [5, 9], [200, 3]]), 256).tolist())"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert seen.strip() == str(assign_item_codes(torch.tensor([[5, 9], [5, 9], [200, 3]]), 256).tolist())


@pytest.mark.parametrize(
    ("prefixes", "strategy", "message"),
    [
        ([[0, 0]] * 5, "forge", r"5 items share all codes .* at most 2\^2 = 4 items apart; raise `codebook_size`"),
        ([[0]], "hash", "`code_strategy` is 'hash'; choose one of forge, count, balance"),
        ([[2]], "forge", r"`prefixes` holds codes outside 0\.\.1"),
    ],
)
def test_prefixes_that_get_no_suffix_are_an_error(prefixes, strategy, message):
    with pytest.raises(ValueError, match=message):
        assign_item_codes(torch.tensor(prefixes), 2, strategy)


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        (5, {}, r"5 items don't fit into 2\^2 = 4 codes; raise `codebook_size` or `num_levels`"),
        (4, {"d_modle": 64}, "ETEGRecConfig has no field 'd_modle'"),
    ],
)
def test_a_recommender_that_cannot_be_built_is_an_error(items, options, message):
    small = RQVAEModel(RQVAEConfig(input_size=3, hidden_sizes=[4], latent_size=2, num_levels=1, codebook_size=2))
    with pytest.raises(ValueError, match=message):
        build_recommender(small, torch.zeros(items, 3), **options)


class Shifted(RQVAEModel):
    """Makes other codes than an `RQVAEModel` of its weights."""

    def encode(self, embeddings, batch_size=8192):
        return (super().encode(embeddings, batch_size) + 1) % self.config.codebook_size


Disguised = type("RQVAEModel", (RQVAEModel,), {})
SMALL = RQVAEConfig(input_size=3, hidden_sizes=[4], latent_size=2, num_levels=1, codebook_size=2)


@pytest.mark.parametrize(
    ("item_tokenizer", "name"),
    [(Shifted(SMALL), "Shifted"), (Disguised(SMALL), "RQVAEModel"), (torch.nn.Linear(3, 2), "Linear")],
)
def test_an_item_tokenizer_of_another_class_is_refused(item_tokenizer, name):
    message = f"`item_tokenizer` is of the class '{name}', .* give other codes; give an RQVAEModel"
    with pytest.raises(ValueError, match=message):
        build_recommender(item_tokenizer, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=message):
        convert_recommender({}, item_tokenizer, torch.zeros(3, 2))


def test_the_class_of_a_folders_own_code_is_the_same_class():
    check_item_tokenizer(type("RQVAEModel", (torch.nn.Module,), {})())


def test_an_item_tokenizer_of_another_class_is_not_loaded_as_one(tmp_path):
    Shifted(SMALL).save_pretrained(tmp_path / "shifted")
    with pytest.raises(
        ValueError, match="holds a model of the class 'Shifted', whose weights can mean something else"
    ):
        load_model(RQVAEModel, str(tmp_path / "shifted"))
    saved = json.loads((tmp_path / "shifted/config.json").read_text())
    with pytest.raises(ValueError, match="`rqvae_config` is of the class 'Shifted'"):
        ETEGRecConfig(n_items=3, code_length=2, codebook_size=2, rqvae_config=saved)
    RQVAEModel(SMALL).save_pretrained(tmp_path / "own")
    saved = json.loads((tmp_path / "own/config.json").read_text())
    assert load_model(RQVAEModel, str(tmp_path / "own")).config.codebook_size == 2
    assert ETEGRecConfig(n_items=3, code_length=2, codebook_size=2, rqvae_config=saved).rqvae_config.latent_size == 2


def test_sizes_of_another_kind_of_item_tokenizer_are_refused():
    class GroupedConfig(RQVAEConfig):
        n_groups: int = 2

    with pytest.raises(ValueError, match="`rqvae_config` is of the class 'GroupedConfig'"):
        ETEGRecConfig(
            n_items=3, code_length=2, codebook_size=2, rqvae_config=GroupedConfig(num_levels=1, codebook_size=2)
        )


def test_a_built_recommender_has_the_tokenizers_codes():
    torch.manual_seed(0)
    rqvae = RQVAEModel(RQVAEConfig(input_size=6, hidden_sizes=[5], latent_size=4, num_levels=2, codebook_size=8))
    embeddings = torch.randn(20, 6)
    model = build_recommender(rqvae, embeddings, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_decoder_layers=1)
    assert torch.equal(model.catalogue.item_codes[:, :2], rqvae.encode(embeddings))
    assert torch.equal(model.catalogue.semantic_embedding[1:], embeddings)
    assert (model.catalogue.semantic_embedding[0] == 0).all()
    assert not any(refresh_item_codes(model).values()), "nothing changed, so no code does"


def test_refreshing_moves_the_surplus_to_the_nearest_code():
    model = make_model(random_codes(5, 2, 4), 4)
    with torch.no_grad():
        latents = model.item_tokenizer.encoder(torch.ones(1, 12))
        shifts = torch.tensor([0.0, 9.0, 1.0, 3.0]).unsqueeze(1)  # code 0 fits, then 2, 3 and at last 1
        model.item_tokenizer.quantizer.codebooks[0] = latents + shifts
    model.catalogue.set_semantic_embedding(torch.ones(5, 12))
    refresh_item_codes(model, "count")
    assert model.catalogue.item_codes.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [2, 0]]


def test_refreshing_counts_what_changed():
    model = make_model(random_codes(40, 3, 8), 8)
    refresh_item_codes(model)
    before = model.catalogue.item_codes.clone()
    with torch.no_grad():
        model.item_tokenizer.quantizer.codebooks.normal_()
    shares = refresh_item_codes(model)
    rows = list(zip(before.tolist(), model.catalogue.item_codes.tolist()))
    share = sum(old != new for old, new in rows) / 40
    assert shares.pop("changed_codes") == pytest.approx(share)
    assert share > 0.5
    for level in range(3):
        share = sum(old[level] != new[level] for old, new in rows) / 40
        assert shares.pop(f"changed_codes_{level}") == pytest.approx(share)
    assert not shares
