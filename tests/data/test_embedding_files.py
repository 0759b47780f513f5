"""Embeddings in files: numbers of any kind are read as float32, and a damaged file is one sentence that names it."""

import json
import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from etegrec_hf.data.embedding_files import read_embeddings
from etegrec_hf.data.new_items import read_new_items
from etegrec_hf.data.prepared import read_items

IDS = list("abcdef")
VALUES = np.arange(12.0).reshape(6, 2) - 3  # all of them exact in float8


def read(path) -> np.ndarray:
    return read_embeddings(path, IDS, np.arange(6), 6)


def write(path, values=VALUES) -> None:
    """A whole file of the embeddings, of the kind that its name says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".safetensors":
        save_file({"embedding": torch.from_numpy(values)}, path)
    else:
        pq.write_table(pa.table({"item_id": IDS, "embedding": values.tolist()}), path)


@pytest.mark.parametrize(
    "kind", ["bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "int8", "int64"]
)
def test_tensors_of_any_numbers_are_read(tmp_path, kind):
    tensor = torch.from_numpy(VALUES).clamp(max=8).to(getattr(torch, kind))
    save_file({"embedding": tensor}, tmp_path / "e.safetensors")
    found = read(tmp_path / "e.safetensors")
    assert found.dtype == np.float32
    assert found.tolist() == VALUES.clip(max=8).tolist()


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([json.dumps(row) for row in VALUES.tolist()], pa.string()),
        ([json.dumps(row) for row in VALUES.tolist()], pa.large_string()),
        (VALUES.tolist(), pa.list_(pa.float64())),
        (VALUES.tolist(), pa.large_list(pa.int16())),
        (VALUES.tolist(), pa.list_(pa.float32(), 2)),
    ],
)
def test_columns_of_lists_and_of_json_are_read_alike_everywhere(tmp_path, cells, kind):
    pq.write_table(pa.table({"item_id": IDS, "embedding": pa.array(cells, kind)}), tmp_path / "e.parquet")
    assert read(tmp_path / "e.parquet").tolist() == VALUES.tolist()
    assert read_new_items(tmp_path / "e.parquet").embeddings.tolist() == VALUES.tolist()


def cut_short(whole: bytes) -> list[bytes]:
    return [whole[: len(whole) * tenths // 10] for tenths in range(1, 10)]


FOREIGN = [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(50), b"PK\x03\x04" + bytes(50), pickle.dumps([1.0])]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize("name", ["e.npy", "e.safetensors", "e.parquet"])
def test_a_damaged_file_is_one_sentence_with_its_name(tmp_path, name):
    path = tmp_path / name
    write(path)
    for content in [*cut_short(path.read_bytes()), *FOREIGN, POINTER]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as error:
            read(path)
        message = str(error.value)
        assert "is empty" in message if not content else "is damaged" in message or content == POINTER
        assert ("`git lfs pull` downloads it" in message) == (content == POINTER)
        assert "copy it again" in message
        assert "allow_pickle" not in message
    if name == "e.parquet":
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_new_items(path)


def test_a_pickled_array_is_never_loaded(tmp_path):
    np.save(tmp_path / "e.npy", np.array([{"a": 1}] * 6, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"holds pickled objects, which are never loaded; .* `np.save`\.$"):
        read(tmp_path / "e.npy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([["a", "b"]] * 6), r"e.npy' holds <U1; save an array of numbers"),
        (VALUES.astype(complex), r"e.npy' holds complex128; save an array of numbers"),
        (np.array(1.0), r"has shape \(\); expected \(6, width\)"),
        (np.zeros((6, 0)), r"has shape \(6, 0\); expected \(6, width\)"),
        (np.full((6, 2), 1e300), "6 embeddings in .*e.npy are missing or hold NaN or infinity"),
    ],
)
def test_arrays_of_something_else_are_an_error(tmp_path, values, message):
    np.save(tmp_path / "e.npy", values)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "e.npy")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"emb": torch.zeros(6, 2)}, r"holds the tensors \['emb'\]; rename the one to use to `embedding`"),
        ({"embedding": torch.zeros(6, 2, dtype=torch.complex64)}, "holds torch.complex64; save real numbers"),
    ],
)
def test_tensors_of_something_else_are_an_error(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "e.safetensors")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"embedding": pa.array([[[1.0]]] * 6)}, "holds list<element: list<element: double>>; give lists of"),
        ({"embedding": pa.array([["a"]] * 6)}, "holds list<element: string>; give lists of numbers"),
        ({"embedding": pa.array(["a"] * 6)}, "holds other text; give lists of numbers, or JSON text"),
        ({"embedding": pa.array([1.0] * 6)}, "holds double; give lists of numbers"),
        ({"embedding": pa.array([[]] * 6, pa.list_(pa.float32()))}, r"have the widths \[0\]; all rows need the same"),
        (
            {"item_id": pa.array(np.arange(6.0))},
            "column 'item_id' of .* holds double, but ids must be text or whole numbers",
        ),
        (
            {"item_id": pa.array([b"a"] * 6)},
            "column 'item_id' of .* holds binary, but ids must be text or whole numbers",
        ),
    ],
)
def test_columns_of_something_else_are_an_error(tmp_path, columns, message):
    table = {"item_id": pa.array(IDS), "embedding": pa.array(VALUES.tolist())} | columns
    pq.write_table(pa.table(table), tmp_path / "e.parquet")
    for reader in (read, read_new_items):
        with pytest.raises(ValueError, match=message):
            reader(tmp_path / "e.parquet")


def test_a_damaged_table_of_items_is_one_sentence_with_its_name(tmp_path):
    (tmp_path / "items").mkdir()
    path = tmp_path / "items/items.parquet"
    write(path)
    whole = path.read_bytes()
    for content in [*cut_short(whole), whole[:4] + b"\xff" * 40 + whole[44:]]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"(?s)items.parquet is damaged .*; copy the dataset again"):
            read_items(tmp_path)
