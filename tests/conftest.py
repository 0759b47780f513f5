"""Tiny models and data that every test may use."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings
from loopback_hub import LoopbackHub
from two_sides import make_stranger

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration, ETEGRecTokenizer
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


def make_model(codes: torch.Tensor, codebook_size: int, seed: int = 0, **config) -> ETEGRecForConditionalGeneration:
    """A tiny recommender in eval mode with the given codes `[n_items, code_length]`."""
    torch.manual_seed(seed)
    n_items, code_length = codes.shape
    sizes = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    tokenizer_sizes = {"input_size": 12, "hidden_sizes": [16], "latent_size": 8}
    model = ETEGRecForConditionalGeneration(
        ETEGRecConfig(
            n_items=n_items,
            code_length=code_length,
            codebook_size=codebook_size,
            rqvae_config=tokenizer_sizes | {"num_levels": code_length - 1, "codebook_size": codebook_size},
            **(sizes | config),
        )
    ).eval()
    model.set_item_codes(codes)
    model.catalogue.set_semantic_embedding(torch.randn(n_items, 12))
    if model.repeat_bias is not None:
        torch.nn.init.normal_(model.repeat_bias, std=0.2)
    return model


def random_codes(n_items: int, code_length: int, codebook_size: int, seed: int = 0) -> torch.Tensor:
    """Distinct random codes."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randperm(codebook_size**code_length, generator=generator)[:n_items]
    return torch.stack([numbers // codebook_size**level % codebook_size for level in range(code_length)], dim=1)


def random_histories(model, lengths: list[int], seed: int = 0) -> torch.Tensor:
    """Item indices `[len(lengths), longest]`, padded right with 0."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randint(1, model.config.n_items + 1, (len(lengths), max(lengths)), generator=generator)
    return history * (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1))


@pytest.fixture
def codes() -> torch.Tensor:
    return random_codes(40, 3, 8)


@pytest.fixture
def model(codes) -> ETEGRecForConditionalGeneration:
    return make_model(codes, 8)


@pytest.fixture
def tokenizer(codes) -> ETEGRecTokenizer:
    return ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], codes, 8, max_history=10)


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> str:
    """A saved recommender, as training leaves it."""
    tokenizer.item_titles = {"i3": "Third", "i14": "[red]<b>A & B</b>[/red]"}
    save_model_folder(tmp_path / "mine", model, tokenizer, TrainingRecord())
    return str(tmp_path / "mine")


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """The Python of an environment without this package."""
    return make_stranger(tmp_path_factory.mktemp("stranger") / "venv")


@pytest.fixture(scope="session")
def process() -> SyntheticProcess:
    return SyntheticProcess(n_users=120, n_items=60, n_clusters=4, width=12, seed=3)


@pytest.fixture(scope="session")
def prepared_folder(process, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    process.write(folder)
    return str(folder)


@pytest.fixture(scope="session")
def prepared(prepared_folder) -> PreparedDataset:
    return PreparedDataset.load(prepared_folder)
