"""The site's reference names everything public, and reads docstrings of Hugging Face's form."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from docs_scripts import load_script

import etegrec_hf

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def hook():
    return load_script("hf_docstrings")


def test_every_public_name_is_in_the_reference_once(hook):
    where = hook.documented()
    assert sorted(where) == sorted(etegrec_hf.__all__)
    entries = [
        line for page in (DOCS / "reference").glob("*.md") for line in re.findall("^::: .+", page.read_text(), re.M)
    ]
    assert len(entries) == len(where)
    for name, path in where.items():
        module, _, attribute = path.rpartition(".")
        assert getattr(import_module(module), attribute) is getattr(etegrec_hf, name)


def test_names_in_brackets_become_links(hook):
    html = "see [<code>RQVAEModel</code>], [<code>ETEGRecTokenizer.ids_of</code>] and [<code>hub_errors</code>]"
    assert hook.on_page_content(html) == (
        'see <autoref identifier="etegrec_hf.models.modeling_rqvae.RQVAEModel"><code>RQVAEModel</code></autoref>, '
        '<autoref identifier="etegrec_hf.models.tokenization_etegrec.ETEGRecTokenizer.ids_of">'
        "<code>ETEGRecTokenizer.ids_of</code></autoref> and <code>hub_errors</code>"
    )


def test_a_tilde_shows_the_last_name_alone(hook):
    shown = hook.on_page_content("[<code>~ETEGRecTokenizer.ids_of</code>]")
    assert shown.endswith('tokenization_etegrec.ETEGRecTokenizer.ids_of"><code>ids_of</code></autoref>')


def test_types_lose_their_marks(hook):
    assert hook.plain("[`RQVAEModel`] or `list[int]`, *optional*") == "RQVAEModel or list[int], optional"
    shape = "`torch.LongTensor` of shape `(batch, items * code_length)`, *optional*"
    assert hook.plain(shape) == "torch.LongTensor of shape (batch, items * code_length), optional"
    assert hook.plain("`str`, `Path` or [`UserHistories`]") == "str, Path, or UserHistories"
