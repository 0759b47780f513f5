import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from etegrec_hf.data.named_embeddings import NamedEmbedding, embedding_names, fuse, read_embedding, write_embedding
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset, set_semantic_embedding


@pytest.fixture
def folder(tmp_path):
    rows = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(8) for step in range(4 + user % 2)]
    lines = ["user_id,item_id,timestamp,title", *(f"{user},{item},{step},T" for user, item, step in rows)]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    np.save(tmp_path / "first.npy", np.arange(12.0).reshape(6, 2))
    prepare(tmp_path / "log.csv", tmp_path / "data", "csv", min_count=1, embedding=str(tmp_path / "first.npy"))
    return tmp_path / "data"


def test_parts_stand_side_by_side_in_their_order():
    a, b = NamedEmbedding("a", np.array([[1.0, 2.0], [3.0, 4.0]])), NamedEmbedding("b", np.array([[5.0], [6.0]]))
    assert fuse([a, b], "none").values.tolist() == [[1, 2, 5], [3, 4, 6]]
    assert fuse([b, a], "none").values.tolist() == [[5, 1, 2], [6, 3, 4]]
    assert [part["name"] for part in fuse([b, a], "none").made["parts"]] == ["b", "a"]
    assert fuse([b, a], "none").values.dtype == np.float32


def test_each_part_has_length_one():
    values = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]])
    assert fuse([NamedEmbedding("a", values)], "l2").values == pytest.approx(np.array([[0.6, 0.8], [0, 0], [0, -1]]))


def test_standardizing_looks_at_known_items_alone():
    random = np.random.default_rng(0)
    values = random.standard_normal((50, 3)) * [1, 100, 0] + [5, 7, 3]
    values[:10] = 0
    standardized = fuse([NamedEmbedding("a", values)], "standardize").values
    assert (standardized[:10] == 0).all()
    assert standardized[10:, :2].mean(0) == pytest.approx(0, abs=1e-5)
    assert standardized[10:, :2].std(0) == pytest.approx(1, abs=1e-5)
    assert (standardized[:, 2] == 0).all(), "a dimension that is the same for all says nothing"


@pytest.mark.parametrize(
    ("names", "normalize", "message"),
    [
        ([], "none", r"is to be made of \[\]; name at least one embedding, each once"),
        (["a", "a"], "none", r"made of \['a', 'a'\]; name at least one embedding, each once"),
        (["a"], "L2", "`normalize` is 'L2'; choose one of none, l2, standardize"),
    ],
)
def test_odd_fusions_are_an_error(names, normalize, message):
    with pytest.raises(ValueError, match=message):
        fuse([NamedEmbedding(name, np.ones((2, 2))) for name in names], normalize)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_are_names_of_files(name):
    with pytest.raises(ValueError, match="use letters, digits"):
        NamedEmbedding(name, np.ones((1, 1)))


def test_a_dataset_says_how_its_semantic_embedding_was_made(folder):
    data = PreparedDataset.load(folder)
    assert data.embeddings.tolist() == np.arange(12.0).reshape(6, 2).tolist()
    second = NamedEmbedding("second", np.arange(6.0)[::-1].reshape(6, 1), {"method": "counted down"})
    write_embedding(folder, second, data.item_ids)
    assert embedding_names(folder) == ["first", "second"]
    set_semantic_embedding(folder, ["second", "first"], "l2")
    fused = PreparedDataset.load(folder)
    assert fused.embeddings[:, 0].tolist() == [1, 1, 1, 1, 1, 0]
    assert fused.embeddings[1, 1:] == pytest.approx(np.array([2, 3]) / np.sqrt(13))
    assert fused.statistics["embedding"] == "second (1) + first (2), each of length 1"
    assert (fused.item_ids, fused.titles) == (data.item_ids, data.titles)
    items = pq.read_table(folder / "items/items.parquet")
    made = json.loads(items.schema.metadata[b"etegrec_hf"])
    assert made == {
        "parts": [
            {"name": "second", "width": 1, "method": "counted down"},
            {"name": "first", "width": 2, "file": "first.npy"},
        ],
        "normalize": "l2",
    }
    card = (folder / "README.md").read_text()
    assert "second (1) + first (2), each of length 1" in card
    configs = yaml.safe_load(card.split("---")[1])["configs"]
    assert [config["config_name"] for config in configs][2:] == ["embedding_first", "embedding_second"]


def test_embeddings_are_found_by_id_and_from_a_file_elsewhere(folder, tmp_path):
    ids = PreparedDataset.load(folder).item_ids
    rows = pa.table({"item_id": [*ids[::-1], "other"], "embedding": [[float(row)] for row in range(7)]})
    pq.write_table(rows, tmp_path / "mine.parquet")
    assert read_embedding(folder, str(tmp_path / "mine.parquet"), ids).values.tolist() == [
        [5],
        [4],
        [3],
        [2],
        [1],
        [0],
    ]
    set_semantic_embedding(folder, ["first", str(tmp_path / "mine.parquet")], "none")
    assert PreparedDataset.load(folder).statistics["embedding"] == "first (2) + mine (1)"
    with pytest.raises(
        FileNotFoundError, match=r"has no embedding 'frist', only \['first'\]; make it with `etegrec emb"
    ):
        set_semantic_embedding(folder, ["frist"], "none")


def test_an_embedding_without_origin_is_kept_before_another_takes_its_place(folder):
    """Datasets of the first version, or made elsewhere, have such an embedding."""
    path = folder / "items/items.parquet"
    ids = PreparedDataset.load(folder).item_ids
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    write_embedding(folder, NamedEmbedding("second", np.ones((6, 1))), ids)
    set_semantic_embedding(folder, ["second"], "none")
    assert read_embedding(folder, "earlier", ids).values.tolist() == np.arange(12.0).reshape(6, 2).tolist()
    set_semantic_embedding(folder, ["first"], "none")
    assert embedding_names(folder) == ["earlier", "first", "second"]


def test_figures_of_the_embedding_are_those_of_the_table(folder, monkeypatch):
    """Also when a fusion was killed before it wrote the statistics."""
    values = np.arange(6.0).reshape(6, 1)
    write_embedding(folder, NamedEmbedding("second", values), PreparedDataset.load(folder).item_ids)
    with monkeypatch.context() as patch:
        patch.setattr("etegrec_hf.data.prepared._write_statistics", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            set_semantic_embedding(folder, ["second", "first"], "none")
    told = PreparedDataset.load(folder).statistics
    assert (told["embedding"], told["embedding_width"]) == ("second (1) + first (2)", 3)
    set_semantic_embedding(folder, ["second"], "none")
    assert json.loads((folder / "statistics.json").read_text())["items_with_zero_embedding"] == 1


def test_a_license_that_was_written_into_the_card_stays(folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: mit"))
    set_semantic_embedding(folder, ["first"], "l2")
    assert "license: mit" in card.read_text()
    assert PreparedDataset.load(folder).statistics["license"] == "mit"
    card.write_text(card.read_text().replace("license: mit", "license: cc0-1.0"))
    set_semantic_embedding(folder, ["first"], "none")
    assert "license: cc0-1.0" in card.read_text()
    assert PreparedDataset.load(folder).statistics["license"] == "cc0-1.0"


def test_files_of_any_name_can_be_prepared_from(folder, tmp_path):
    (tmp_path / "more").mkdir()
    names = ("item-emb-1-3.npy", "item emb (1).npy", "more/item emb (1).npy", "more/item-emb-1-2.npy")
    files = [str(tmp_path / name) for name in names]
    for number, path in enumerate(files):
        np.save(path, np.full((6, 1), number))
    prepare(tmp_path / "log.csv", tmp_path / "again", "csv", min_count=1, embedding=files)
    assert embedding_names(tmp_path / "again") == ["item-emb-1", "item-emb-1-2", "item-emb-1-2-2", "item-emb-1-3"]
    assert PreparedDataset.load(tmp_path / "again").embeddings[0].tolist() == [0, 1, 2, 3]


def test_an_interrupted_fusion_leaves_the_dataset_as_it_was(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr("etegrec_hf.data.prepared.pq.write_table", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        set_semantic_embedding(folder, ["first"], "l2")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert PreparedDataset.load(folder).statistics["embedding"] == "first (2)"


def test_nothing_in_a_card_is_markup(tmp_path):
    (tmp_path / "a|b `x` <script>.csv").write_text(
        "user_id,item_id\n" + "".join(f"u,{item}\n" for item in ("{name}", "<b>", "x|y"))
    )
    prepare(tmp_path / "a|b `x` <script>.csv", tmp_path / "data", "csv", min_count=1)
    row = next(line for line in (tmp_path / "data/README.md").read_text().splitlines() if line.startswith("| source"))
    assert row == "| source | a&#124;b &#96;x&#96; &lt;script&gt;.csv |"
    assert PreparedDataset.load(tmp_path / "data").item_ids == ["{name}", "<b>", "x|y"]
