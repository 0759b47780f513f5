"""The file that embeddings are mapped from: as the column has them, made once, and never a stale or broken one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file
from two_sides import etegrec

from etegrec_hf.data import mapped_embeddings as module
from etegrec_hf.data.fingerprint import fingerprint
from etegrec_hf.data.mapped_embeddings import ITEMS, MAPPED, find_mapped_embeddings, mapped_embeddings
from etegrec_hf.data.named_embeddings import embedding_column
from etegrec_hf.data.prepared import PreparedDataset, set_semantic_embedding


@pytest.fixture
def folder(prepared_folder, tmp_path) -> Path:
    return Path(shutil.copytree(prepared_folder, tmp_path / "data"))


def rewrite(folder: Path, rows: list, **options) -> None:
    """Gives the table of items other embeddings."""
    items = pq.read_table(folder / ITEMS)
    items = items.set_column(items.column_names.index("embedding"), "embedding", [rows])
    pq.write_table(items, folder / ITEMS, **options)


def test_rows_are_those_of_the_column(folder, prepared, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)  # so that several batches are read
    mapped = mapped_embeddings(folder)
    assert mapped.dtype == torch.float32
    assert torch.equal(mapped, torch.from_numpy(prepared.embeddings))
    assert torch.equal(load_file(folder / MAPPED)["embedding"], mapped), "a safetensors file like any other"
    assert mapped.data_ptr() % module.PAGE == 0
    again = PreparedDataset.load(folder, map_embeddings=True)
    assert fingerprint(again) == fingerprint(prepared)
    assert (again.item_ids, again.titles, again.statistics) == (
        prepared.item_ids,
        prepared.titles,
        prepared.statistics,
    )


def test_the_file_is_made_once_and_again_for_another_table(folder, monkeypatch):
    made = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda *paths: (made.append(paths), write(*paths)))
    assert find_mapped_embeddings(folder) is None
    assert PreparedDataset.load(folder).embeddings is not None
    assert not made, "nobody asked for it"
    first = mapped_embeddings(folder).clone()
    mapped_embeddings(folder), PreparedDataset.load(folder, map_embeddings=True)
    assert len(made) == 1
    set_semantic_embedding(folder, ["clusters"], "l2")
    assert find_mapped_embeddings(folder) is None
    second = mapped_embeddings(folder)
    assert len(made) == 2
    torch.testing.assert_close(second, torch.nn.functional.normalize(first))


def test_a_table_as_long_and_as_old_as_the_one_before_is_another(folder):
    first = mapped_embeddings(folder)
    rewrite(folder, first.tolist(), use_dictionary=False, compression="none")
    mapped_embeddings(folder)
    known = (folder / ITEMS).stat()
    rewrite(folder, first.flip(0).tolist(), use_dictionary=False, compression="none")
    os.utime(folder / ITEMS, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert (folder / ITEMS).stat().st_size == known.st_size
    assert torch.equal(mapped_embeddings(folder), first.flip(0))


@pytest.mark.parametrize("kept", [0, 5, 5000, -1])
def test_a_damaged_file_is_made_again(folder, prepared, kept):
    mapped_embeddings(folder)
    path = folder / MAPPED
    path.write_bytes(path.read_bytes()[:kept])
    assert torch.equal(mapped_embeddings(folder), torch.from_numpy(prepared.embeddings))
    assert [name.name for name in path.parent.iterdir() if "incomplete" in name.name] == []


def test_where_there_is_a_file_every_reader_uses_it(folder, monkeypatch):
    mapped_embeddings(folder)
    monkeypatch.setattr("etegrec_hf.data.prepared.embeddings_of_column", lambda *arguments: pytest.fail("read whole"))
    assert PreparedDataset.load(folder).embeddings.shape == (60, 12)


def test_what_is_written_stays_in_the_process(folder, prepared):
    mapped_embeddings(folder).zero_()
    assert torch.equal(mapped_embeddings(folder), torch.from_numpy(prepared.embeddings))


def test_others_pass_the_file_by(folder, prepared, tmp_path):
    mapped_embeddings(folder)
    items = load_dataset(str(folder), "items", cache_dir=str(tmp_path / "cache"))["train"]
    assert items["item_id"][:] == prepared.item_ids
    np.testing.assert_array_equal(np.array(items["embedding"][:], dtype=np.float32), prepared.embeddings)


@pytest.mark.slow
def test_the_file_is_not_pushed(folder, hub, tmp_path):
    mapped_embeddings(folder)
    pushed = etegrec("push", "--data", str(folder), "--repo-id", "log", **hub.environment(tmp_path / "home"))
    assert pushed.returncode == 0, pushed.stderr
    expected = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(hub.files("datasets/tester/log")) == {name for name in expected if not name.startswith(".mapped/")}


@pytest.mark.parametrize("value", [None, [float("nan")] * 12, [float("inf")] * 12])
def test_broken_embeddings_are_an_error(folder, prepared, value, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    rows = prepared.embeddings.tolist()
    rewrite(folder, [*rows[:40], value, *rows[41:]])
    message = f"is missing or holds NaN or infinity, first that of item '{prepared.item_ids[40]}'"
    with pytest.raises(ValueError, match=message):
        mapped_embeddings(folder)
    assert not (folder / MAPPED).exists()


def test_embeddings_of_several_widths_are_an_error(folder, prepared, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 20)
    rows = prepared.embeddings.tolist()
    rewrite(folder, [*rows[:40], *(row[:5] for row in rows[40:])])
    with pytest.raises(ValueError, match=r"have the widths \[5, 12\]; all need the same width"):
        mapped_embeddings(folder)


def test_what_has_no_embeddings_is_an_error(folder, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="nothing' doesn't exist; check the path, or make a prepared dataset with"
    ):
        PreparedDataset.load(tmp_path / "nothing", map_embeddings=True)
    pq.write_table(pq.read_table(folder / ITEMS).drop_columns("embedding"), folder / ITEMS)
    with pytest.raises(ValueError, match="holds no `embedding`; make one with `etegrec embed`"):
        PreparedDataset.load(folder, map_embeddings=True)
    assert PreparedDataset.load(folder).embeddings is None


def test_a_damaged_table_is_an_error(folder):
    path = folder / ITEMS
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"x" * 3000 + whole[3060:])
    with pytest.raises(ValueError, match=r"items.parquet is damaged .*; copy the dataset again, or prepare it again"):
        mapped_embeddings(folder)
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"items.parquet is damaged .*; copy the dataset again, or prepare"):
        PreparedDataset.load(folder, map_embeddings=True)


def test_where_nothing_can_be_written_is_an_error(folder, monkeypatch):
    (folder / ".mapped").write_text("a file in the folder's place")
    with pytest.raises(OSError, match=r"can't be written: .* make room, copy the dataset"):
        mapped_embeddings(folder)
    (folder / ".mapped").unlink()

    def full(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", full)
    with pytest.raises(OSError, match=r"can't be written: .*No space left on device"):
        mapped_embeddings(folder)


def test_a_file_that_is_there_is_read_where_nothing_can_be_written(folder, prepared, monkeypatch):
    mapped_embeddings(folder)
    monkeypatch.setattr(Path, "mkdir", lambda *arguments, **options: pytest.fail("read-only"))
    assert torch.equal(mapped_embeddings(folder), torch.from_numpy(prepared.embeddings))


READ = """
import sys
from etegrec_hf.data.mapped_embeddings import mapped_embeddings
print(mapped_embeddings(sys.argv[1]).sum(dtype=float).item())
"""


@pytest.mark.slow
def test_processes_that_want_it_at_once_get_the_same(folder, prepared):
    processes = [
        subprocess.Popen([sys.executable, "-c", READ, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    sums = {float(process.communicate()[0]) for process in processes}
    assert sums == {torch.from_numpy(prepared.embeddings).sum(dtype=float).item()}


MEASURE = """
import json, sys, torch
from pathlib import Path
from etegrec_hf.data.mapped_embeddings import mapped_embeddings

def own():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1000

before = own()
mapped = mapped_embeddings(sys.argv[1])
made = own()
for batch in mapped.split(8192):
    batch.sum()
print(json.dumps([before, made, own(), mapped.nbytes / 1e6]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("row_group", [8192, 10**6])
def test_neither_making_nor_reading_takes_memory(folder, row_group):
    """Also from a table of a single row group, as earlier versions wrote it."""
    values = np.random.default_rng(0).random((120_000, 1024), dtype=np.float32)
    ids = [f"i{row}" for row in range(len(values))]
    pq.write_table(pa.table({"item_id": ids, "embedding": embedding_column(values)}), folder / ITEMS, row_group)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True)
    before, made, read, size = json.loads(done.stdout)
    assert size > 480
    assert made - before < 0.6 * size
    assert read - made < 10
