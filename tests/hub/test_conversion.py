"""The original ETEGRec's checkpoints: made here in its layout with random weights, and computed here in its way."""

import json
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import T5Config, T5ForConditionalGeneration

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer, RQVAEModel
from etegrec_hf.cli.main import main
from etegrec_hf.hub.conversion import convert_recommender, convert_rqvae, read_codes, read_state_dict

N_ITEMS, LEVELS, K, WIDTH, INPUT, LATENT = 30, 4, 16, 24, 20, 8


@pytest.fixture(scope="module")
def original():
    """The recommender's T5 and both state dicts, with the names that the original gives them."""
    torch.manual_seed(0)
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=3, d_model=WIDTH, d_ff=40, d_kv=6, num_layers=2, num_decoder_layers=3, num_heads=2)
    ).eval()
    for parameter in t5.parameters():
        parameter.data.normal_(std=0.3)
    recommender = {f"model.{name}": tensor.clone() for name, tensor in t5.state_dict().items()}
    recommender |= {f"token_embeddings.{level}.weight": torch.randn(K, WIDTH) for level in range(LEVELS)}
    for adapter, width in (("enc", LATENT), ("dec", INPUT)):
        recommender[f"{adapter}_adapter.mlp_layers.1.weight"] = torch.randn(width, WIDTH)
        recommender[f"{adapter}_adapter.mlp_layers.1.bias"] = torch.randn(width)
    recommender["semantic_embedding.weight"] = torch.randn(N_ITEMS + 1, INPUT)
    # of lengths that differ, so that distances do, but little, as by "dot" most items had one code otherwise
    tables = F.normalize(torch.randn(LEVELS - 1, K, LATENT), dim=-1) * (2 + torch.rand(LEVELS - 1, K, 1))
    rqvae = {f"rq.vq_layers.{level}.embedding.weight": table.clone() for level, table in enumerate(tables)}
    widths = [INPUT, 16, 12, LATENT]
    for side, sizes in (("encoder", widths), ("decoder", widths[::-1])):
        for number, layer in enumerate((1, 4, 7)):
            rqvae[f"{side}.mlp_layers.{layer}.weight"] = torch.randn(sizes[number + 1], sizes[number]) * 0.3
            rqvae[f"{side}.mlp_layers.{layer}.bias"] = torch.randn(sizes[number + 1])
    return t5, recommender, rqvae


@pytest.fixture
def files(original, tmp_path):
    """The three files, and the map of item ids."""
    _, recommender, rqvae = original
    torch.save(recommender, tmp_path / "X.pt")
    torch.save(rqvae, tmp_path / "X.pt.rqvae")
    write_codes(tmp_path, original)
    ids = {"[PAD]": 0} | {f"B{number:03}": number for number in range(1, N_ITEMS + 1)}
    (tmp_path / "X.emb_map.json").write_text(json.dumps(ids))
    return tmp_path


def prefixes_of_the_original(rqvae, embeddings, dist="l2"):
    """Codes `[n, levels]` that its RQ-VAE gives embeddings, by the distances that its configuration knows."""
    residual = encoded_by_the_original(rqvae, embeddings)
    codes = []
    for level in range(LEVELS - 1):
        table = rqvae[f"rq.vq_layers.{level}.embedding.weight"]
        distances = {
            "l2": lambda: torch.cdist(residual, table),  # noqa: B023
            "dot": lambda: -residual @ table.T,  # noqa: B023
            "cos": lambda: -F.cosine_similarity(residual.unsqueeze(1), table, dim=-1),  # noqa: B023
        }
        codes.append(distances[dist]().argmin(1))
        residual = residual - table[codes[-1]]
    return torch.stack(codes, dim=1)


def encoded_by_the_original(rqvae, embeddings):
    for layer in (1, 4, 7):
        embeddings = F.linear(
            embeddings, rqvae[f"encoder.mlp_layers.{layer}.weight"], rqvae[f"encoder.mlp_layers.{layer}.bias"]
        )
        embeddings = embeddings if layer == 7 else embeddings.relu()
    return embeddings


def write_codes(folder, original, dist="l2"):
    """The `.code.json` of a run: its RQ-VAE's codes and a suffix that counts."""
    _, recommender, rqvae = original
    rows = prefixes_of_the_original(rqvae, recommender["semantic_embedding.weight"][1:], dist).tolist()
    codes = [[*row, rows[:number].count(row)] for number, row in enumerate(rows)]
    (folder / "X.code.json").write_text(json.dumps([[-1] * LEVELS, *codes]))


def convert(files, *more, output="converted") -> int:
    names = {"recommender": "X.pt", "rqvae": "X.pt.rqvae", "codes": "X.code.json"}
    paths = [part for name, file in names.items() for part in (f"--{name}", str(files / file))]
    return main(["convert", *paths, "--output-dir", str(files / output), *map(str, more)])


def logits_of_the_original(t5, recommender, codes, mask, target):
    """Logits `[batch, levels, K]` as the original computes them, for codes `[batch, items * levels]`.

    A position is embedded by the table of its level, and padding by row 0 of T5's own embedding. The decoder starts
    with that row too and then reads the target's codes but the last, each by its level's table. A level's logits are
    the decoder's states at its position times its table, without any scale.
    """
    tables = [recommender[f"token_embeddings.{level}.weight"] for level in range(LEVELS)]
    start = recommender["model.shared.weight"][0]
    embedded = torch.stack([tables[place % LEVELS][codes[:, place]] for place in range(codes.shape[1])], dim=1)
    embedded[~mask] = start
    decoded = [start.expand(len(codes), WIDTH), *(tables[level][target[:, level]] for level in range(LEVELS - 1))]
    output = t5(
        inputs_embeds=embedded,
        attention_mask=mask.long(),
        decoder_inputs_embeds=torch.stack(decoded, dim=1),
        output_hidden_states=True,
    )
    states = output.decoder_hidden_states[-1]
    logits = torch.stack([states[:, level] @ tables[level].T for level in range(LEVELS)], dim=1)
    encoded = output.encoder_last_hidden_state * mask.unsqueeze(-1)
    return logits, encoded.sum(1) / mask.sum(1, keepdim=True), states[:, 0]


@torch.no_grad()
def test_logits_and_latents_equal_the_originals(original, files):
    t5, recommender, _ = original
    assert convert(files, "--item-ids", files / "X.emb_map.json") == 0
    model = ETEGRecForConditionalGeneration.from_pretrained(files / "converted").eval()
    tokenizer = ETEGRecTokenizer.from_pretrained(files / "converted")
    model.catalogue.check_tokenizer(tokenizer)
    histories = [["B001", "B007", "B030"], ["B012"]]
    batch = tokenizer(histories, padding=True, return_tensors="pt")
    targets = torch.tensor(tokenizer.index_of(["B002", "B003"]))
    output = model(**batch, labels=model.catalogue.item_tokens[targets])

    all_codes = torch.tensor(json.loads((files / "X.code.json").read_text()))
    items = torch.tensor([[1, 7, 30], [12, 0, 0]])
    codes = all_codes[items].flatten(1).clamp(min=0)
    mask = (items > 0).repeat_interleave(LEVELS, dim=1)
    logits, sequence, preference = logits_of_the_original(t5, recommender, codes, mask, all_codes[targets])
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-5)
    for name, ours, states in (("enc", "sequence_projection", sequence), ("dec", "preference_latents", preference)):
        weight, bias = (recommender[f"{name}_adapter.mlp_layers.1.{kind}"] for kind in ("weight", "bias"))
        torch.testing.assert_close(getattr(output, ours), F.linear(states, weight, bias), atol=1e-5, rtol=1e-5)
    assert torch.equal(model.catalogue.semantic_embedding[1:], recommender["semantic_embedding.weight"][1:])
    assert torch.equal(model.catalogue.item_codes, all_codes[1:])
    assert "| source | converted from" in (files / "converted" / "README.md").read_text()


def test_the_rqvae_reconstructs_as_the_original(original):
    rqvae = original[2]
    embeddings = torch.randn(5, INPUT)
    codes = prefixes_of_the_original(rqvae, embeddings)
    decoded = sum(rqvae[f"rq.vq_layers.{level}.embedding.weight"][codes[:, level]] for level in range(LEVELS - 1))
    for layer in (1, 4, 7):
        decoded = F.linear(
            decoded, rqvae[f"decoder.mlp_layers.{layer}.weight"], rqvae[f"decoder.mlp_layers.{layer}.bias"]
        )
        decoded = decoded if layer == 7 else decoded.relu()
    output = convert_rqvae(rqvae)(embeddings)
    assert torch.equal(output.codes, codes)
    torch.testing.assert_close(output.reconstruction, decoded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [0, 1])
def test_embeddings_come_from_a_file_where_the_state_dict_has_none(original, files, padding):
    _, recommender, _ = original
    torch.save({k: v for k, v in recommender.items() if k != "semantic_embedding.weight"}, files / "X.pt")
    assert convert(files, output="without") == 0
    assert ETEGRecForConditionalGeneration.from_pretrained(files / "without").catalogue.semantic_embedding is None
    embeddings = recommender["semantic_embedding.weight"][1 - padding :].numpy()
    np.save(files / "E.npy", embeddings)
    assert convert(files, "--embeddings", files / "E.npy", output="with") == 0
    for broken in (b"", b"PK"):
        (files / "broken.npy").write_bytes(broken)
        assert convert(files, "--embeddings", files / "broken.npy", output="broken") == 1
    model = ETEGRecForConditionalGeneration.from_pretrained(files / "with")
    assert np.array_equal(model.catalogue.semantic_embedding[1:].numpy(), embeddings[padding:])
    assert ETEGRecTokenizer.from_pretrained(files / "with").item_ids == [
        str(number) for number in range(1, N_ITEMS + 1)
    ]


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_wants_to_run_code_is_refused(files, capsys):
    state = {"model.shared.weight": Evil(files / "ran")}
    for save in (torch.save, lambda state, path: path.write_bytes(pickle.dumps(state, protocol=2))):
        save(state, files / "X.pt")
        assert convert(files) == 1
        assert "X.pt' is refused" in capsys.readouterr().err
    assert not (files / "ran").exists()
    assert not (files / "converted").exists()
    pickle.loads(pickle.dumps(state))["model.shared.weight"].close()
    assert (files / "ran").exists(), "the pickle does what it wants where it is loaded carelessly"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: (files / "X.pt").write_bytes((files / "X.pt").read_bytes()[:500]), "X.pt' is refused"),
        (lambda files: torch.save([torch.zeros(1)], files / "X.pt"), "isn't a state dict of tensors"),
        (lambda files: torch.save(torch.load(files / "X.pt.rqvae"), files / "X.pt"), "give the original's `.pt`"),
        (lambda files: torch.save(torch.load(files / "X.pt"), files / "X.pt.rqvae"), "give the original's `.rqvae`"),
        (lambda files: (files / "X.pt").unlink(), "isn't a file"),
        (lambda files: (files / "X.code.json").write_text("[[0, 1, 2, 3], [1, 1, 1, 1]]"), "row 0 of"),
        (lambda files: (files / "X.code.json").write_text("[[-1, -1], [1]]"), "a list of code lists"),
        (lambda files: (files / "X.code.json").write_text("[[-1, -1], [1, 2]]"), "2 levels and the recommender has 4"),
        (
            lambda files: (files / "X.code.json").write_text(json.dumps([[-1] * 4, [1, 2, 3, 4], [1, 2, 3, 4]])),
            "items 1 and 2 share the codes",
        ),
        (lambda files: (files / "X.code.json").write_text(json.dumps([[-1] * 4, [1, 2, 3, 16]])), "16"),
        (lambda files: (files / "X.code.json").write_text('{"a": 1}'), "a list of code lists"),
        (lambda files: (files / "X.emb_map.json").write_text('{"[PAD]": 0, "a": 1, "b": 3}'), "numbers 2 items"),
        (lambda files: (files / "X.emb_map.json").write_text('["a"]'), "a mapping of item ids"),
        (lambda files: (files / "X.emb_map.json").write_text('{"a": "b"}'), "a mapping of item ids"),
    ],
)
def test_files_that_are_not_the_originals_are_refused(files, capsys, change, message):
    change(files)
    assert convert(files, "--item-ids", files / "X.emb_map.json") == 1
    assert message in capsys.readouterr().err
    assert not (files / "converted").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.zeros(1)}, "'extra.weight', which the original's doesn't"),
        ({"model.encoder.block.9.weight": torch.zeros(1)}, "missing or too many"),
        ({"model.encoder.block.0.layer.1.DenseReluDense.wi_0.weight": torch.zeros(1)}, "gated feed-forward"),
        ({"dec_adapter.mlp_layers.1.bias": torch.zeros(INPUT + 1)}, "don't fit together"),
        ({"enc_adapter.mlp_layers.1.bias": None}, "no 'enc_adapter.mlp_layers.1.bias'"),
        ({"model.decoder.final_layer_norm.weight": None}, "missing or too many"),
        ({"token_embeddings.2.weight": torch.zeros(K + 1, WIDTH)}, "they must be alike"),
        ({"model.shared.weight": torch.zeros(3, WIDTH + 1)}, "`model.shared` is 25 wide"),
    ],
)
def test_state_dicts_of_another_shape_are_refused(original, files, change, message):
    state = {name: tensor for name, tensor in (original[1] | change).items() if tensor is not None}
    codes = read_codes(files / "X.code.json")
    with pytest.raises(ValueError, match=message):
        convert_recommender(state, convert_rqvae(original[2]), codes)
    assert isinstance(convert_rqvae(read_state_dict(files / "X.pt.rqvae")), RQVAEModel)


@pytest.mark.parametrize(("dist", "ours"), [("l2", "l2"), ("cos", "cosine"), ("dot", "dot")])
def test_the_rqvae_gets_the_distance_that_made_the_codes(original, files, dist, ours):
    write_codes(files, original, dist)
    assert convert(files) == 0
    model = ETEGRecForConditionalGeneration.from_pretrained(files / "converted")
    assert model.config.rqvae_config.distance == ours
    made = model.item_tokenizer.encode(model.catalogue.semantic_embedding[1:])
    assert torch.equal(made, model.catalogue.item_codes[:, :-1])


def test_an_rqvae_of_another_run_is_refused(original, files, capsys):
    torch.save({name: torch.randn_like(tensor) for name, tensor in original[2].items()}, files / "X.pt.rqvae")
    assert convert(files) == 1
    message = capsys.readouterr().err
    assert "makes the codes of at most 0.0% of the items, by any of the distances l2, cosine, dot; take" in message
    assert not (files / "converted").exists()


def test_without_embeddings_a_note_says_that_codes_were_not_compared(original, files, capsys):
    torch.save({k: v for k, v in original[1].items() if k != "semantic_embedding.weight"}, files / "X.pt")
    assert convert(files) == 0
    assert (
        "note: without --embeddings it isn't checked whether the RQ-VAE makes these codes" in capsys.readouterr().err
    )


def damaged(whole: bytes) -> list[bytes]:
    """Damages a file: cut at a tenth of its length, two tenths, ..., or replaced by something else."""
    cut = [whole[: len(whole) * tenths // 10] for tenths in range(1, 10)]
    return [*cut, b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(50), b"PK\x03\x04" + bytes(50)]


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_damaged_state_dict_is_refused_however_it_is_damaged(tmp_path, as_zip):
    path = tmp_path / "X.pt"
    torch.save({"a": torch.zeros(5000)}, path, _use_new_zipfile_serialization=as_zip)
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"X.pt' is refused: it is (damaged|empty,) or holds more than tensors"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"module.a": torch.zeros(1)}, r"begin with 'module.', .* wrapped model do; save `model.module.state_dict"),
        ({"_orig_mod.a": torch.zeros(1)}, r"begin with '_orig_mod.', .* save `model._orig_mod.state_dict"),
        ({1: torch.zeros(1)}, "isn't a state dict of tensors; save `model.state_dict"),
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, "a state dict as its entry 'state_dict'; save that entry"),
    ],
)
def test_a_state_dict_that_is_wrapped_is_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "X.pt")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "X.pt")
