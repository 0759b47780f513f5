"""Fixtures that every test may use.

They import what is heavy when they are used. The first of pytest-xdist's processes runs no test: it imports this file,
and then starts the others.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings
from loopback_hub import LoopbackHub
from pictures import undrawn
from two_sides import make_stranger

settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


@pytest.fixture
def codes():
    """The codes of 40 items, `[40, 3]`."""
    from tiny_models import random_codes

    return random_codes(40, 3, 8)


@pytest.fixture
def model(codes):
    """A tiny recommender of these codes."""
    from tiny_models import make_model

    return make_model(codes, 8)


@pytest.fixture
def tokenizer(codes):
    """Its tokenizer, of the items i1 to i40."""
    from etegrec_hf import ETEGRecTokenizer

    return ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], codes, 8, max_history=10)


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> str:
    """A saved recommender, as training leaves it."""
    from etegrec_hf.hub.model_folder import save_model_folder
    from etegrec_hf.hub.training_record import TrainingRecord

    tokenizer.item_titles = {"i3": "Third", "i14": "[red]<b>A & B</b>[/red]"}
    save_model_folder(tmp_path / "mine", model, tokenizer, TrainingRecord())
    return str(tmp_path / "mine")


@pytest.fixture
def undrawn_pictures():
    with undrawn():
        yield


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """The Python of an environment without this package."""
    return make_stranger(tmp_path_factory.mktemp("stranger") / "venv")


@pytest.fixture(scope="session")
def process():
    """What the tiny data is made by: walks of 120 users over 60 items."""
    from etegrec_hf.data.synthetic import SyntheticProcess

    return SyntheticProcess(n_users=120, n_items=60, n_clusters=4, width=12, seed=3)


@pytest.fixture(scope="session")
def prepared_folder(process, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    process.write(folder)
    return str(folder)


@pytest.fixture(scope="session")
def prepared(prepared_folder):
    """The tiny data as a `PreparedDataset`."""
    from etegrec_hf.data.prepared import PreparedDataset

    return PreparedDataset.load(prepared_folder)
