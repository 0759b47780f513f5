"""Conversion of the original ETEGRec's checkpoints to models of this package."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ..data.embedding_files import read_array, what_is_wrong
from ..models.configuration_etegrec import ETEGRecConfig
from ..models.configuration_rqvae import DISTANCES, RQVAEConfig
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.modeling_rqvae import RQVAEModel, check_item_tokenizer
from ..models.tokenization_etegrec import ETEGRecTokenizer

StateDict = dict[str, torch.Tensor]
# The right RQ-VAE gives nearly all items their codes, and the RQ-VAE of another run gives them to hardly any
LEAST_SHARE = 0.5
# Weights in the original's recommender that aren't needed: copies of `shared`, and a head that is never used
COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "model.lm_head.weight")
# Prefixes that wrappers of a model add to the names of its weights, and the attribute that holds the model
WRAPPERS = {"module.": "module", "_orig_mod.": "_orig_mod"}
FEED_FORWARD = "encoder.block.0.layer.1.DenseReluDense"
ATTENTION = "encoder.block.0.layer.0.SelfAttention"


def convert_files(
    recommender: str | Path,
    rqvae: str | Path,
    codes: str | Path,
    embeddings: str | Path | None = None,
    item_ids: str | Path | None = None,
    max_history: int = 50,
) -> tuple[ETEGRecForConditionalGeneration, ETEGRecTokenizer]:
    """Converts the files of one run of the original to a model and its tokenizer.

    Args:
        recommender, rqvae (`str` or `Path`): state dicts, see [`convert_recommender`] and [`convert_rqvae`].
        codes (`str` or `Path`): see [`read_codes`].
        embeddings (`str` or `Path`, *optional*): see [`read_embeddings`]; by default those in the recommender's file.
        item_ids (`str` or `Path`, *optional*): see [`read_item_ids`]; by default items are called 1, 2, 3, ...
        max_history (`int`, *optional*, defaults to 50): how many items the model reads, the last ones of a history.

    Raises:
        FileNotFoundError: a file doesn't exist.
        ValueError: a file holds something else.
        ValueError: the files don't fit together.
    """
    item_codes = read_codes(codes)
    n_items = len(item_codes)
    model = convert_recommender(
        read_state_dict(recommender),
        convert_rqvae(read_state_dict(rqvae)),
        item_codes,
        read_embeddings(embeddings, n_items) if embeddings else None,
        max_history,
    )
    ids = read_item_ids(item_ids, n_items) if item_ids else [str(number) for number in range(1, n_items + 1)]
    size = model.config.codebook_size
    return model, ETEGRecTokenizer.from_item_codes(ids, item_codes, size, max_history=max_history)


def check_file(path: str | Path, what: str) -> None:
    """Raises a `FileNotFoundError` unless there is a file at the path; `what` names the file in the message."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} isn't a file; give the path of {what}.")


def read_state_dict(path: str | Path) -> StateDict:
    """Reads tensors by name from a file that `torch.save` wrote. Nothing else is loaded, and no code in it runs.

    Raises:
        FileNotFoundError: the file doesn't exist.
        ValueError: the file is damaged, or holds more than tensors.
        ValueError: the state dict is one entry of the file among others.
        ValueError: the state dict is that of a wrapped model.
    """
    check_file(path, "a state dict")
    with Path(path).open("rb") as file:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file breaks the reader anywhere, with errors of any kind
            raise ValueError(
                f"{str(path)!r} is refused: it {what_is_wrong(path)} or holds more than tensors, which could run "
                "code; copy the file again, or save its state dict alone."
            ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        raise ValueError(f"{str(path)!r} holds a state dict as its entry 'state_dict'; save that entry alone.")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ValueError(f"{str(path)!r} isn't a state dict of tensors; save `model.state_dict()` alone.")
    for prefix, attribute in WRAPPERS.items():
        if state and all(name.startswith(prefix) for name in state):
            raise ValueError(
                f"all names in {str(path)!r} begin with {prefix!r}, as those of a wrapped model do; save "
                f"`model.{attribute}.state_dict()`."
            )
    return state


def read_codes(path: str | Path) -> torch.LongTensor:
    """Reads raw codes `[n_items, code_length]` from the original's `.code.json`.

    The file holds one list of codes per row. Row 0 is padding: its codes are -1.

    Raises:
        FileNotFoundError: the file doesn't exist.
        ValueError: the file holds something else.
    """
    check_file(path, "the original's .code.json")
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        codes = torch.tensor(rows)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{str(path)!r} isn't a list of code lists of one length: {error}; repair that row."
        ) from error
    if codes.ndim != 2 or codes.is_floating_point() or len(codes) < 2:
        raise ValueError(f"{str(path)!r} holds codes of shape {tuple(codes.shape)}; expected (n_items + 1, levels).")
    if not (codes[0] == -1).all():
        raise ValueError(f"row 0 of {str(path)!r} is {rows[0]}; expected padding: only -1, as in the original's file.")
    return codes[1:]


def read_item_ids(path: str | Path, n_items: int) -> list[str]:
    """Reads item ids, in the order of their numbers, from the original's `emb_map.json`.

    The file maps ids to numbers; number 0 is padding.

    Raises:
        FileNotFoundError: the file doesn't exist.
        ValueError: the file holds something else, or the numbers aren't 1 to `n_items`.
    """
    check_file(path, "the original's emb_map.json")
    try:
        number_of = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} isn't JSON: {error}; give the original's emb_map.json.") from error
    if not isinstance(number_of, dict) or not all(isinstance(number, int) for number in number_of.values()):
        raise ValueError(f"{str(path)!r} isn't a mapping of item ids to numbers; give the original's emb_map.json.")
    ids = sorted((item_id for item_id, number in number_of.items() if number != 0), key=number_of.__getitem__)
    if [number_of[item_id] for item_id in ids] != list(range(1, n_items + 1)):
        raise ValueError(
            f"{str(path)!r} numbers {len(ids)} items, but not as 1 to {n_items}, each once, as the codes do; take the "
            "files of one run."
        )
    return ids


def read_embeddings(path: str | Path, n_items: int) -> torch.FloatTensor:
    """Reads semantic embeddings `[n_items, width]` from an `.npy` file, with or without a row 0 of padding.

    Raises:
        FileNotFoundError: the file doesn't exist.
        ValueError: the file is damaged, or holds something else.
        ValueError: the file has another number of rows.
    """
    check_file(path, "an .npy")
    embeddings = torch.from_numpy(read_array(path).astype(np.float32))
    if embeddings.ndim != 2 or len(embeddings) not in (n_items, n_items + 1):
        raise ValueError(
            f"{str(path)!r} has shape {tuple(embeddings.shape)}; expected one row per item ({n_items}), maybe with a "
            "row of padding before them."
        )
    return embeddings[-n_items:]


def convert_rqvae(state: StateDict) -> RQVAEModel:
    """Returns the original's RQ-VAE as an [`RQVAEModel`].

    The original's file doesn't name the distance that the run used, so the model has `"l2"`. The names in the file are
    `encoder.mlp_layers.{1,4,7}`, `decoder.mlp_layers.{1,4,7}` and `rq.vq_layers.{0,1,2}.embedding.weight`. In MLPs,
    dropout, linear layer and activation take turns.

    Raises:
        ValueError: a name is missing or unknown.
        ValueError: shapes don't fit together.
    """
    state = dict(state)
    layers = sorted(_numbers(state, r"encoder\.mlp_layers\.(\d+)\.weight"))
    levels = _numbers(state, r"rq\.vq_layers\.(\d+)\.embedding\.weight")
    if not layers or not levels:
        raise ValueError(
            "the RQ-VAE's state dict has no `encoder.mlp_layers.*.weight` or `rq.vq_layers.*.embedding.weight`; give "
            "the original's `.rqvae` file."
        )
    books = [_take(state, f"rq.vq_layers.{level}.embedding.weight") for level in range(len(levels))]
    if len({book.shape for book in books}) > 1:
        raise ValueError(f"codebooks have shapes {[tuple(book.shape) for book in books]}; they must be alike.")
    new = {"quantizer.codebooks": torch.stack(books)}
    for side in ("encoder", "decoder"):
        for number, layer in enumerate(layers):
            for kind in ("weight", "bias"):  # between our linear layers is one activation
                new[f"{side}.{2 * number}.{kind}"] = _take(state, f"{side}.mlp_layers.{layer}.{kind}")
    widths = [len(new[f"encoder.{2 * number}.bias"]) for number in range(len(layers))]
    config = RQVAEConfig(
        input_size=new["encoder.0.weight"].shape[1],
        hidden_sizes=widths[:-1],
        latent_size=widths[-1],
        num_levels=len(books),
        codebook_size=len(books[0]),
    )
    return _with_weights(RQVAEModel(config), new, state)


def convert_recommender(
    state: StateDict,
    item_tokenizer: RQVAEModel,
    codes: torch.LongTensor,
    embeddings: torch.FloatTensor | None = None,
    max_history: int = 50,
) -> ETEGRecForConditionalGeneration:
    """Returns the original's recommender as a model of this package, which computes the same logits.

    The names in the original's file are `model.*` (a T5 of transformers), `token_embeddings.{0..L-1}.weight`,
    `enc_adapter.mlp_layers.1`, `dec_adapter.mlp_layers.1` and `semantic_embedding.weight`. Our flat vocabulary begins
    with row 0 of the original's `shared`, for padding and the decoder's start. The original's tables follow, level
    after level. Logits aren't scaled.

    Args:
        state (`dict[str, torch.Tensor]`): the original's state dict.
        item_tokenizer ([`RQVAEModel`]): see [`convert_rqvae`]. If there are embeddings, the recommender's copy gets
            the distance by which it makes the codes.
        codes (`torch.LongTensor` of shape `(n_items, code_length)`): raw codes.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): the items' semantic embeddings;
            by default those in the state dict, if there are any.
        max_history (`int`, *optional*, defaults to 50): how many items the model reads, the last ones of a history;
            the original's file doesn't name this number.

    Raises:
        ValueError: a name is missing or unknown.
        ValueError: the feed-forward layers are gated.
        ValueError: sizes don't fit together.
        ValueError: the item tokenizer is of a subclass.
        ValueError: by every distance, the item tokenizer makes other codes of the embeddings.
    """
    check_item_tokenizer(item_tokenizer)
    state = dict(state)
    levels = len(_numbers(state, r"token_embeddings\.(\d+)\.weight"))
    if not levels:
        raise ValueError("the recommender's state dict has no `token_embeddings.0.weight`; give the original's `.pt`.")
    if codes.shape[1] != levels:
        raise ValueError(
            f"the codes have {codes.shape[1]} levels and the recommender has {levels}; take the files of one run."
        )
    tables = [_take(state, f"token_embeddings.{level}.weight") for level in range(levels)]
    if len({table.shape for table in tables}) > 1:
        raise ValueError(
            f"`token_embeddings` have the shapes {[tuple(table.shape) for table in tables]}; they must be alike."
        )
    shared = _take(state, "model.shared.weight")
    if shared.shape[1:] != tables[0].shape[1:]:
        raise ValueError(
            f"`model.shared` is {shared.shape[1]} wide and `token_embeddings` are {tables[0].shape[1]} wide; they "
            "must be alike."
        )
    new = {"shared.weight": torch.cat([shared[:1], *tables])}
    for ours, theirs in (("sequence_adapter", "enc_adapter"), ("preference_adapter", "dec_adapter")):
        for kind in ("weight", "bias"):
            new[f"{ours}.{kind}"] = _take(state, f"{theirs}.mlp_layers.1.{kind}")
    own_embeddings = state.pop("semantic_embedding.weight", None)
    if embeddings is None and own_embeddings is not None:
        embeddings = own_embeddings[1:]
    for name in COPIES:
        state.pop(name, None)
    stacks = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    if f"{FEED_FORWARD}.wi_0.weight" in stacks:
        raise ValueError("the recommender has gated feed-forward layers; only T5's ReLU kind can be converted.")

    buckets, heads = _take(dict(stacks), f"{ATTENTION}.relative_attention_bias.weight").shape
    inner = len(_take(dict(stacks), f"{ATTENTION}.q.weight"))
    config = ETEGRecConfig(
        n_items=len(codes),
        code_length=levels,
        codebook_size=len(tables[0]),
        d_model=tables[0].shape[1],
        d_ff=len(_take(dict(stacks), f"{FEED_FORWARD}.wi.weight")),
        d_kv=inner // heads,
        num_layers=len(_numbers(stacks, r"encoder\.block\.(\d+)\..*")),
        num_decoder_layers=len(_numbers(stacks, r"decoder\.block\.(\d+)\..*")),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        scale_logits=False,
        max_history=max_history,
        has_semantic_embedding=embeddings is not None,
        rqvae_config=item_tokenizer.config.to_dict(),
    )
    new |= stacks | {f"item_tokenizer.{name}": tensor for name, tensor in item_tokenizer.state_dict().items()}
    left = {name: tensor for name, tensor in state.items() if not name.startswith("model.")}
    model = _with_weights(ETEGRecForConditionalGeneration(config), new, left)
    model.set_item_codes(codes)
    if embeddings is not None:
        model.catalogue.set_semantic_embedding(embeddings)
        set_distance_of_codes(model.item_tokenizer, codes[:, :-1], embeddings)
    return model


def set_distance_of_codes(
    item_tokenizer: RQVAEModel, prefixes: torch.LongTensor, embeddings: torch.FloatTensor
) -> None:
    """Gives an RQ-VAE the distance by which it makes most of these codes; the original's file doesn't name it.

    Args:
        item_tokenizer ([`RQVAEModel`]): changed in place.
        prefixes (`torch.LongTensor` of shape `(n_items, num_levels)`): raw codes without suffix.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): the items' semantic embeddings.

    Raises:
        ValueError: by every distance, the RQ-VAE makes the codes of fewer than half of the items.
    """
    shares = {}
    for distance in DISTANCES:
        item_tokenizer.quantizer.distance = distance
        same = item_tokenizer.encode(embeddings) == prefixes
        shares[distance] = same.all(dim=1).float().mean().item()
    best = max(shares, key=shares.__getitem__)
    item_tokenizer.config.distance = item_tokenizer.quantizer.distance = best
    if shares[best] < LEAST_SHARE:
        raise ValueError(
            f"from these embeddings, the RQ-VAE makes the codes of at most {shares[best]:.1%} of the items, by any of "
            f"the distances {', '.join(DISTANCES)}; take codes, RQ-VAE and embeddings of one run."
        )


def _numbers(state: StateDict, pattern: str) -> set[int]:
    """Returns the numbers in the names that a pattern with one group matches."""
    return {int(match[1]) for name in state if (match := re.fullmatch(pattern, name))}


def _take(state: StateDict, name: str) -> torch.Tensor:
    """Removes a tensor from a state dict and returns it.

    Raises:
        ValueError: the state dict lacks the tensor.
    """
    if name not in state:
        raise ValueError(f"the state dict has no {name!r}, which the original's has; give the whole file.")
    return state.pop(name)


def _with_weights(model: PreTrainedModel, weights: StateDict, left: StateDict):
    """Returns the model with these weights. Weights in `left` have no place in the model: each is an error."""
    if left:
        raise ValueError(
            f"the state dict holds {next(iter(left))!r}, which the original's doesn't; give the original's file."
        )
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(f"sizes in the files don't fit together: {str(error).splitlines()[-1].strip()}") from error
    tables = {name for name in model.state_dict() if name.startswith("catalogue.")}
    own = {*tables, *(getattr(model, "_tied_weights_keys", None) or {})}
    for name in [*unexpected, *sorted(set(missing) - own)]:
        raise ValueError(f"the state dict's weights are not the original's: {name!r} is missing or too many.")
    return model.eval()
