import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.data.new_items import NewItems, add_new_items, read_new_items
from etegrec_hf.training.item_tokenizer.item_codes import refresh_item_codes


def test_a_parquet_file(tmp_path):
    path = tmp_path / "new.parquet"
    fractions, whole = [[0.5, 1.0], [2.0, 3.0]], [[1, 2], [3, 4]]
    kinds = {pa.list_(pa.float64()): fractions, pa.list_(pa.float32(), 2): fractions, pa.large_list(pa.int32()): whole}
    for kind, values in kinds.items():
        table = pa.table({"title": ["A", None], "item_id": [7, 8], "embedding": pa.array(values, kind)})
        pq.write_table(table, path)
        items = read_new_items(path)
        assert items.item_ids == ["7", "8"]
        assert items.title_of == {"7": "A"}
        assert items.embeddings.dtype == np.float32
        assert items.embeddings.tolist() == values


def test_a_csv_file_takes_ids_as_they_are_written(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text('item_id,embedding\n007,"[0.5, 1]"\n1e3,"[2, -3e-1]"\n')
    items = read_new_items(path)
    assert items.item_ids == ["007", "1e3"]
    assert items.title_of == {}
    assert items.embeddings.tolist() == np.array([[0.5, 1], [2, -0.3]], np.float32).tolist()


def test_titles_that_are_not_there_are_no_words(tmp_path):
    table = pa.table({"item_id": ["a", "b", "c"], "title": [float("nan"), 7.5, None], "embedding": [[1.0]] * 3})
    pq.write_table(table, tmp_path / "new.parquet")
    assert read_new_items(tmp_path / "new.parquet").title_of == {"b": "7.5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,title\na,A\n", "has no column 'embedding', only ['item_id', 'title']; it needs `item_id`"),
        ('id,embedding\na,"[1]"\n', "has no column 'item_id'"),
        ("item_id,embedding\n", "holds no items"),
        ('item_id,embedding\na,"[1]"\na,"[2]"\n', "holds 1 duplicate item id, first 'a'; keep"),
        ('item_id,embedding\n,"[1]"\n', "holds 1 empty item id; give each item an id"),
        ('item_id,embedding\na,"[1, 2]"\nb,"[2]"\n', "have the widths [1, 2]"),
        ('item_id,embedding\na,"[1]"\nb,\n', "1 embedding in"),
        ('item_id,embedding\na,"[NaN]"\n', "is missing or holds NaN or infinity, first that of item 'a'"),
        ("item_id,embedding\na,0.5 1.0\n", "holds other text; give lists of numbers"),
        ("item_id,embedding\na,0.5\n", "holds other text; give lists of numbers"),
        ('item_id,embedding\na,"[""x""]"\n', "holds other text; give lists of numbers"),
        ('item_id,embedding\na,"[1]"\nb\n', "1 malformed row in"),
        ("", "can't be read"),
    ],
)
def test_what_is_no_table_of_items_is_an_error(tmp_path, text, message):
    path = tmp_path / "new.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_new_items(path)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("new.parquet", None, FileNotFoundError, "new.parquet' isn't a file; check the path"),
        ("new.parquet", "nothing", ValueError, "new.parquet' is damaged .*; copy it again"),
        ("new.npy", "nothing", ValueError, "isn't a .parquet or .csv file, nor a prepared dataset; convert it"),
    ],
)
def test_other_files_are_an_error(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        read_new_items(tmp_path / name)


def test_a_table_of_numbers_is_an_error(tmp_path):
    pq.write_table(pa.table({"item_id": ["a"], "embedding": [1.5]}), tmp_path / "new.parquet")
    with pytest.raises(ValueError, match="holds double; give lists of numbers"):
        read_new_items(tmp_path / "new.parquet")


def with_embeddings(tokenizer, embeddings: torch.Tensor) -> NewItems:
    """Items that the model knows, and one that it doesn't."""
    ids = [*tokenizer.item_ids, "new"]
    return NewItems(ids, {}, torch.cat([embeddings, torch.ones(1, 12)]).numpy())


def test_items_join_whose_known_neighbours_have_the_models_embeddings(model, tokenizer):
    own = model.catalogue.semantic_embedding[1:]
    nearly = own + 0.05 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0))
    nearly[3] = 0  # nothing is known of it there
    before = own.clone()
    assert add_new_items(with_embeddings(tokenizer, nearly), model, tokenizer) == 1
    assert torch.equal(model.catalogue.semantic_embedding[1:41], before), "those of known items stay"
    assert model.catalogue.semantic_embedding[41].tolist() == [1.0] * 12
    assert tokenizer.item_ids[40:] == ["new"]
    assert add_new_items(NewItems(tokenizer.item_ids[:40], {}, before.numpy()), model, tokenizer) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.flip(0), r"is -?0\.\d+ \(at least 0.8 is needed\), and \d+% of them"),
        (
            lambda own: own @ torch.linalg.qr(torch.ones(12, 12) + torch.eye(12))[0],
            r"is -?0\.\d+ \(at least 0.8 is needed\), and \d+% of them",
        ),
        (
            lambda own: own / 1000,
            r"is 1.000 \(at least 0.8 is needed\), and \d% of them",
        ),
    ],
)
def test_embeddings_that_were_made_otherwise_are_refused(model, tokenizer, change, message):
    items = with_embeddings(tokenizer, change(model.catalogue.semantic_embedding[1:]))
    with pytest.raises(ValueError, match="of 40 items that both have, the mean cosine of both embeddings " + message):
        add_new_items(items, model, tokenizer)
    assert len(tokenizer.item_ids) == model.config.n_items == 40


def test_a_model_without_embeddings_is_asked_for_codes(model, tokenizer):
    own = model.catalogue.semantic_embedding[1:].clone()
    refresh_item_codes(model)
    tokenizer = ETEGRecTokenizer.from_item_codes(tokenizer.item_ids, model.catalogue.item_codes, 8)
    model.catalogue.semantic_embedding, model.config.has_semantic_embedding = None, False
    with pytest.raises(ValueError, match=r"of 40 items that both have, \d+% of them get the same first code \(at le"):
        add_new_items(with_embeddings(tokenizer, own.flip(0)), model, tokenizer)
    assert add_new_items(with_embeddings(tokenizer, own), model, tokenizer) == 1


def test_a_single_code_that_can_have_been_moved_is_not_compared(caplog):
    model = make_model(random_codes(9, 2, 4), 4)
    tokenizer = ETEGRecTokenizer.from_item_codes(list("abcdefghi"), model.catalogue.item_codes, 4)
    model.catalogue.semantic_embedding, model.config.has_semantic_embedding = None, False
    assert add_new_items(NewItems(["a", "new"], {}, np.ones((2, 12), np.float32)), model, tokenizer) == 1
    assert "it can't be checked whether the embeddings were made in the same way" in caplog.text


def test_a_warning_says_that_nothing_could_be_compared(model, tokenizer, caplog):
    assert add_new_items(NewItems(["new"], {}, np.ones((1, 12), np.float32)), model, tokenizer) == 1
    assert "The model has no embedding of any of these items" in caplog.text
