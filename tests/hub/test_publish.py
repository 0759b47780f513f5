"""`etegrec push` and the library's own pushing, by real clients over HTTP."""

import json
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries
from safetensors.torch import load_file, save_file
from tiny_models import make_model
from two_sides import etegrec, run, several, start

from etegrec_hf import RQVAEConfig, RQVAEModel
from etegrec_hf.cli.main import main
from etegrec_hf.hub.eval_results import EVAL_RESULTS
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.publish import OWN_FILES, publish
from etegrec_hf.hub.repository import RepositoryOptions
from etegrec_hf.hub.training_record import TrainingRecord

RQVAE_CODE = {"configuration_rqvae.py", "file_modes.py", "modeling_rqvae.py", "model_card.py"}
WRITER = {"HF_TOKEN": "hf_writer"}
CODE = {
    "beam_search.py",
    "code_distribution.py",
    "code_trie.py",
    "configuration_etegrec.py",
    "configuration_rqvae.py",
    "decoding.py",
    "encoded_history.py",
    "file_modes.py",
    "codes_for_new_items.py",
    "headwise_t5.py",
    "histories.py",
    "history_encoder.py",
    "item_inputs.py",
    "item_logits.py",
    "node_term.py",
    "recency_bias.py",
    "repeat_bias.py",
    "scoring.py",
    "softmax_mixture.py",
    "search.py",
    "search_options.py",
    "target_decoder.py",
    "item_transitions.py",
    "item_catalogue.py",
    "logits_process.py",
    "model_card.py",
    "modeling_etegrec.py",
    "modeling_rqvae.py",
    "pipeline_etegrec.py",
    "token_layout.py",
    "tokenization_etegrec.py",
}
DATA = {
    "README.md",
    "config.json",
    "generation_config.json",
    "item_index.json",
    "item_titles.json",
    "model.safetensors",
    "tokenizer_config.json",
    "training_record.json",
}


def content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.slow
def test_what_is_sent_is_what_is_needed(folder, hub, tmp_path):
    hashes = {"items": "1", "train": "2", "test": "3"}
    results = {"split": "test", "metrics": {"recall@10": 0.5}, "protocol": {"data": hashes}}
    TrainingRecord(evaluations=[results], fingerprint=hashes).write(folder)
    before = content(folder)
    torch.save({}, Path(folder) / "optimizer.pt")
    environment = hub.environment(tmp_path / "home")
    pushed = etegrec(
        "push", "--model", folder, "--repo-id", "mine", "--private", "true", "--license", "mit",
        "--without-embeddings", "true", "--dataset-id", "tester/log", **environment,
    )  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    assert hub.private == {"tester/mine"}
    sent = hub.files("tester/mine")
    assert sent.keys() == CODE | DATA | {EVAL_RESULTS}
    (result,) = parse_eval_result_entries(yaml.safe_load(sent[EVAL_RESULTS]))
    assert (result.dataset_id, result.task_id, result.value) == ("tester/log", "test_recall_at_10", 0.5)
    weights = tmp_path / "sent.safetensors"
    weights.write_bytes(sent["model.safetensors"])
    assert "semantic_embedding" not in load_file(weights)
    assert json.loads(sent["config.json"])["has_semantic_embedding"] is False
    card = sent["README.md"].decode()
    assert "license: mit" in card
    assert "- tester/log" in card
    assert 'model="tester/mine"' in card
    assert {**content(folder), **before} == content(folder), "the local folder is as it was"


@pytest.mark.slow
def test_an_interrupted_push_can_be_repeated_and_is_one_commit(folder, hub, tmp_path):
    environment = hub.environment(tmp_path / "home")
    before = content(folder)
    arguments = ("push", "--model", folder, "--repo-id", "tester/mine", "--revision", "v1")
    hub.stalled = True
    with start(*arguments, **environment) as process:
        assert hub.uploading.wait(timeout=120)
        process.kill()
    assert hub.files("tester/mine", "v1") == {}, "all of it or nothing"
    assert content(folder) == before
    hub.stalled = False
    (code, _, error), again = several([(arguments, {"HF_TOKEN": "hf_writer"})] * 2, **environment)
    assert code == again[0] == 0, error
    assert hub.files("tester/mine", "v1").keys() == CODE | DATA
    assert hub.files("tester/mine", "main") == {}
    assert hub.requests["PUT upload"] == 2, "one that broke off and one that didn't; nothing is sent twice"
    assert hub.repositories["tester/mine"].messages == ["initial commit", "Upload etegrec model"]


@pytest.mark.slow
def test_what_is_pushed_over_another_model(folder, model, tokenizer, hub, tmp_path):
    tokenizer.item_titles = {}
    save_model_folder(tmp_path / "untitled", model, tokenizer, TrainingRecord())
    sizes = {"input_size": 6, "hidden_sizes": [8], "latent_size": 4, "num_levels": 2, "codebook_size": 16}
    save_model_folder(tmp_path / "rqvae", RQVAEModel(RQVAEConfig(**sizes)), None, TrainingRecord())
    push = [
        (folder, "--license", "mit", "--dataset-id", "tester/log"),
        (tmp_path / "untitled",),
        (tmp_path / "rqvae",),
    ]
    push.append((folder, "--private", "true"))
    commands = [(("push", "--repo-id", "tester/it", "--model", *line), WRITER) for line in push]
    *done, refused = several(commands, **hub.environment(tmp_path / "home"))
    assert [code for code, _, _ in done] == [0, 0, 0], done
    assert refused[0] == 1
    assert "exists and is public" in refused[2]
    repository = hub.repositories["tester/it"]
    _, titled, untitled, rqvae = (
        {path: hub.contents[n] for path, n in tree.items()} for tree in repository.commits.values()
    )
    assert json.loads(titled["item_titles.json"])
    assert json.loads(untitled["item_titles.json"]) == {}
    for files in (titled, untitled, rqvae):
        assert b"license: mit" in files["README.md"]
        assert b"- tester/log" in files["README.md"]
    assert rqvae.keys() == {*RQVAE_CODE, "README.md", "config.json", "model.safetensors", "training_record.json"}


@pytest.mark.slow
def test_an_item_tokenizer_alone(hub, stranger, tmp_path):
    torch.manual_seed(0)
    model = RQVAEModel(RQVAEConfig(input_size=6, hidden_sizes=[8], latent_size=4, num_levels=2, codebook_size=16))
    save_model_folder(tmp_path / "rqvae", model, None, TrainingRecord())
    here, there = hub.environment(tmp_path / "here"), hub.environment(tmp_path / "there")
    pushed = etegrec("push", "--model", tmp_path / "rqvae", "--repo-id", "tester/rqvae", **here)
    assert pushed.returncode == 0, pushed.stderr
    assert hub.files("tester/rqvae").keys() == RQVAE_CODE | {
        "README.md",
        "config.json",
        "model.safetensors",
        "training_record.json",
    }
    used = run(
        stranger,
        "-c",
        "import torch; from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained('tester/rqvae', trust_remote_code=True).eval()\n"
        "print(model.encode(torch.arange(12.).view(2, 6)).tolist())\n"
        "model.push_to_hub('tester/again')",
        **there,
    )
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout) == model.eval().encode(torch.arange(12.0).view(2, 6)).tolist()
    assert "tester/again" in hub.files("tester/again")["README.md"].decode()
    # and a recommender is built around a published one
    build = (
        "import torch; from etegrec_hf import RQVAEModel, build_recommender\n"
        "published = RQVAEModel.from_pretrained('tester/rqvae')\n"
        "model = build_recommender(published, torch.randn(9, 6), d_model=16, num_layers=1)\n"
        "print(model.catalogue.item_codes.shape)"
    )
    built = run(sys.executable, "-c", build, **here)
    assert built.stdout.strip() == "torch.Size([9, 3])", built.stderr


@pytest.mark.slow
def test_a_trainer_pushes_what_it_trained(prepared_folder, hub, tmp_path):
    script = Path(__file__).with_name("push_from_trainer.py")
    done = run(sys.executable, script, prepared_folder, tmp_path / "run", **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "etegrec" in seen["tags"]
    assert seen["same"], "a card that is there is kept"
    assert seen["own"], "so is one that somebody else wrote"
    sent = hub.files("tester/trained")
    assert sent.keys() == CODE | DATA
    record = json.loads(sent["training_record.json"])
    assert record["data"]["source"] == "synthetic"
    assert record["stages"][0]["epochs"] == 2
    assert 'model="tester/trained"' in sent["README.md"].decode()


@pytest.mark.slow
def test_commands_take_ids_of_the_hub(folder, codes, tokenizer, hub, tmp_path):
    other = tmp_path / "other"
    save_model_folder(other, make_model(codes, 8, seed=5), tokenizer, TrainingRecord())
    hub.add("tester/gated", Path(folder))
    hub.gated.add("tester/gated")

    def recommend(*model: str) -> tuple:
        wanted = ("--history", "i1,i2", "--top-k", "40", "--num-beams", "64")
        return (("recommend", "--model", *model, *wanted), {})

    environment = hub.environment(tmp_path / "home")
    push = ("push", "--repo-id", "tester/mine", "--model")
    pushed, branched, shown, second, theirs, absent, no_id, no_revision, gated = several(
        [
            ((*push, folder), WRITER),
            ((*push, str(other), "--revision", "v2"), WRITER),
            recommend("tester/mine"),
            recommend("tester/mine", "--revision", "v2"),
            recommend(str(other)),
            recommend("tester/nothing"),
            recommend("nothing"),
            recommend("tester/mine", "--revision", "v3"),
            recommend("tester/gated"),
        ],
        **environment,
    )
    assert [done[0] for done in (pushed, branched, shown, second, theirs)] == [0] * 5, (pushed, branched, second)
    assert "[red]<b>A & B</b>[/red]" in shown[1], "titles are text, not markup"
    assert second[1] == theirs[1] != shown[1]
    assert [done[0] for done in (absent, no_id, no_revision, gated)] == [1] * 4
    assert "a repository on the Hub" in absent[2]
    assert "isn't a folder" in no_id[2]
    assert "the Hub's 'tester/mine@v3' has no such revision" in no_revision[2]
    assert "'tester/gated' is gated (Access to model tester/gated is restricted" in gated[2]
    assert "ask for access on its page" in gated[2]
    offline = [recommend("tester/mine"), recommend("tester/mine@v2"), recommend("tester/nothing")]
    cached, of_branch, unseen = several(offline, **environment | {"HF_HUB_OFFLINE": "1"})
    assert (cached[:2], of_branch[:2]) == (shown[:2], second[:2])
    assert unseen[0] == 1
    assert "the cache doesn't hold" in unseen[2]


@pytest.mark.slow
def test_who_may_not_write_is_told_so(folder, hub, tmp_path):
    before = content(folder)
    cases = [
        ({"HF_TOKEN": "hf_reader"}, "tester/mine", "doesn't let you write to 'tester/mine'"),
        ({}, "tester/mine", "log in"),
        (WRITER, "somebody/mine", "doesn't let you write to 'somebody/mine'"),
        (WRITER, "a/b/c", "Repo id must be"),
        (WRITER, "tester/my model", "Repo id must"),
    ]
    commands = [(("push", "--model", folder, "--repo-id", repo_id), token) for token, repo_id, _ in cases]
    for (code, out, error), (_, _, message) in zip(several(commands, **hub.environment(tmp_path)), cases, strict=True):
        assert (code, out) == (1, "")
        assert message in error
        assert error.splitlines()[-1].startswith("etegrec push: "), "one line, and no trace"
    assert content(folder) == before
    assert not hub.repositories


@pytest.mark.slow
def test_without_a_network_the_folder_is_intact(folder, hub, tmp_path):
    before = content(folder)
    environment = hub.environment(tmp_path / "home") | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    pushed = etegrec("push", "--model", folder, "--repo-id", "tester/mine", **environment)
    assert pushed.returncode == 1, pushed.stdout
    assert "no connection to http://127.0.0.1:9" in pushed.stderr
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE is set.* is as it was"):
        publish(folder, "tester/mine")  # this process is offline
    assert content(folder) == before


def damage(name: str, folder: Path) -> None:
    if name == "codes":
        weights = load_file(folder / "model.safetensors")
        weights["catalogue.item_tokens"][2] = weights["catalogue.item_tokens"][1]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        index = json.loads((folder / "item_index.json").read_text())
        (folder / "item_index.json").write_text(json.dumps(index | {"i2": index["i1"]}))
    elif name == "tokenizer":
        index = json.loads((folder / "item_index.json").read_text())
        (folder / "item_index.json").write_text(json.dumps(index | {"i1": index["i2"], "i2": index["i1"]}))
    elif name.startswith("-"):
        (folder / name[1:]).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:40])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("codes", "share the codes"),
        ("tokenizer", "tokenizer and model disagree about item 'i1'"),
        ("-config.json", "holds no model"),
        ("-model.safetensors", "holds no model.safetensors"),
        ("-item_index.json", "holds no item_index.json"),
        ("-tokenizer_config.json", "holds no tokenizer_config.json"),
        ("model.safetensors", "model.safetensors in"),
        ("item_index.json", "item_index.json in"),
        ("training_record.json", "training_record.json in"),
    ],
)
def test_a_folder_that_is_not_whole_is_not_sent(folder, tmp_path, name, message):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    damage(name, broken)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        publish(broken, "tester/mine")


@pytest.fixture
def card_sent(tmp_path, monkeypatch):
    """Publishes to a repository with a card, or to a new one, without a server; returns metadata of the new card."""
    client = Mock()

    def sent(folder: str, standing: str | None = None, **options) -> ModelCardData:
        there = set()
        if standing is not None:
            (tmp_path / "standing.md").write_text(f"---\n{standing}\n---\n# Mine\n")
            client.hf_hub_download.return_value, there = str(tmp_path / "standing.md"), {"README.md"}
        monkeypatch.setattr("etegrec_hf.hub.publish.HfApi", lambda: client)
        monkeypatch.setattr("etegrec_hf.hub.publish.open_repository", lambda *_: ("tester/mine", there))
        cards = []

        def commit(repo_id, operations, **_):
            cards.extend(
                Path(one.path_or_fileobj).read_text() for one in operations if one.path_in_repo == "README.md"
            )
            return Mock()

        client.create_commit = commit
        publish(folder, "tester/mine", **options)
        return ModelCard(cards[0]).data

    return sent


@pytest.mark.parametrize("written", ["datasets: me/my-log", "datasets:\n- me/my-log\n- me/other"])
def test_the_dataset_that_a_card_names_stays(folder, card_sent, written):
    assert card_sent(folder, written).datasets == ["me/my-log"]


@pytest.mark.parametrize(
    ("own", "standing", "given", "expected"),
    [
        ("license: mit", None, None, "mit"),
        ("license: mit", "tags:\n- a", None, "mit"),
        ("license: mit", "license: apache-2.0", None, "apache-2.0"),
        ("license: mit", "license: apache-2.0", "cc0-1.0", "cc0-1.0"),
        ("license: [mit", None, "cc0-1.0", "cc0-1.0"),
        ("tags:\n- a", None, None, None),
    ],
)
def test_a_license_is_given_or_stays_or_comes_from_the_folder(folder, card_sent, own, standing, given, expected):
    Path(folder, "README.md").write_text(f"---\n{own}\n---\n# Mine\n")
    assert card_sent(folder, standing, repository=RepositoryOptions(license=given)).license == expected


def test_an_item_tokenizer_has_no_embeddings_to_leave_out(tmp_path, capsys):
    sizes = {"input_size": 6, "hidden_sizes": [8], "latent_size": 4, "num_levels": 2, "codebook_size": 16}
    RQVAEModel(RQVAEConfig(**sizes)).save_pretrained(tmp_path)
    assert main(["push", str(tmp_path), "--repo-id", "tester/mine", "--without-embeddings", "true"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "`without_embeddings` is True and the folder holds an item tokenizer, which has no embeddings" in told
    assert "omit the option, or give a recommender's folder." in told


def test_embeddings_that_the_models_own_settings_rank_by_are_not_left_out(codes, tokenizer, tmp_path):
    model = make_model(codes, 8, search_settings={"rerank_weight": 4.0})
    save_model_folder(tmp_path / "mine", model, tokenizer, TrainingRecord())
    with pytest.raises(ValueError, match="`without_embeddings` is True, but the model's lists are ranked again by"):
        publish(tmp_path / "mine", "tester/mine", without_embeddings=True)


@pytest.mark.parametrize(
    ("reads_items", "rerank_weight", "message"),
    [(True, 0, "the model's encoder reads"), (False, 4.0, "the model's lists are ranked again by")],
)
def test_embeddings_that_are_needed_are_not_left_out(codes, tokenizer, tmp_path, reads_items, rerank_weight, message):
    model = make_model(codes, 8, reads_items=reads_items)
    record = TrainingRecord()
    record.add_evaluation({"split": "test", "metrics": {"recall@10": 0.1}, "rerank_weight": rerank_weight})
    save_model_folder(tmp_path / "mine", model, tokenizer, record)
    with pytest.raises(ValueError, match=f"`without_embeddings` is True, but {message}"):
        publish(tmp_path / "mine", "tester/mine", without_embeddings=True)
    with pytest.raises(ConnectionError):  # with them it goes on to the Hub, which is offline here
        publish(tmp_path / "mine", "tester/mine")


def test_a_module_of_the_repositorys_own_stays():
    """Files that this package sends into a repository are deleted when they are no longer needed, and no others."""
    assert "modeling_rqvae.py" in OWN_FILES
    assert "__init__.py" not in OWN_FILES, "it isn't sent"


def test_a_damaged_card_on_the_hub_is_named(folder, card_sent):
    with pytest.raises(ValueError, match=r"the metadata of .*standing.md is damaged"):
        card_sent(folder, "license: [mit")
