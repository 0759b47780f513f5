"""Unique item codes for a catalogue, and building a recommender with them."""

from collections.abc import Callable

import torch

from ...data.checks import check_choice
from ...evaluation.code_diagnostics import code_changes
from ...models.configuration_etegrec import ETEGRecConfig
from ...models.configuration_rqvae import RQVAEConfig
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.modeling_rqvae import RQVAEModel, check_item_tokenizer

STRATEGIES = ("forge", "count", "balance")
BATCH_SIZE = 8192  # items encoded at a time


def assign_item_codes(
    prefixes: torch.LongTensor,
    codebook_size: int,
    strategy: str = "forge",
    closeness: Callable[[torch.LongTensor], torch.FloatTensor] | None = None,
) -> torch.LongTensor:
    """Appends a suffix to each prefix so that no two items have the same codes.

    Args:
        prefixes (`torch.LongTensor` of shape `(n_items, code_length - 1)`): the RQ-VAE's codes.
        codebook_size (`int`): number K of codes per level; codes and suffixes are `0..K-1`.
        strategy (`str`, *optional*, defaults to `"forge"`): how suffixes are assigned:

            - `"forge"`: item i of a prefix, counted in item order, gets the suffix `(offset + i) % K`. The offset is
              an Adler-32 checksum of the prefix (its codes as little-endian 32-bit integers).
            - `"count"`: items of a prefix get 0, 1, 2, ... in item order (TIGER, the original ETEGRec).
            - `"balance"`: items that share all codes before the last level get the last level's codes in turn, and
              are then counted.

        closeness (`Callable`, *optional*): function from row numbers of `prefixes`, `[n]`, to how near those items
            are to each code of the last level, `[n, K]`. If more than K items share a prefix, each further item takes
            the nearest code of the last level that has room. By default, codes with near numbers are near.

    Returns:
        `torch.LongTensor` of shape `(n_items, code_length)`: the codes with their suffixes.

    Raises:
        ValueError: the strategy is unknown.
        ValueError: a code is out of range.
        ValueError: more items share all codes before the last level than there are codes for.

    Source: specification, section 9.2. Its Python `hash` is replaced by a checksum that is the same everywhere.
    """
    check_choice("code_strategy", strategy, STRATEGIES)
    if len(prefixes) and not (prefixes.min() >= 0 and prefixes.max() < codebook_size):
        raise ValueError(
            f"`prefixes` holds codes outside 0..{codebook_size - 1}; give the tokenizer's `codebook_size`."
        )
    prefixes = prefixes.long()
    parent = prefixes[:, :-1]
    parent_of = _groups(parent, codebook_size)
    family = parent_of.bincount()  # items per parent, which is all codes before the last level
    if len(prefixes) and family.max() > codebook_size**2:
        raise ValueError(
            f"{family.max().item()} items share all codes before the last level, but last code and suffix tell at "
            f"most {codebook_size}^2 = {codebook_size**2} items apart; raise `codebook_size` or `code_length`, or "
            "train an item tokenizer that gives fewer items the same codes."
        )
    if strategy == "balance":
        rank = _rank_within(parent_of)
        codes = torch.cat([parent, (rank % codebook_size).unsqueeze(1)], dim=1)
        return torch.cat([codes, (rank // codebook_size).unsqueeze(1)], dim=1)
    prefixes = _relocate_surplus(prefixes, parent_of, codebook_size, closeness)
    suffix = _rank_within(_groups(prefixes, codebook_size))
    if strategy == "forge":
        suffix = (adler32(prefixes) + suffix) % codebook_size
    return torch.cat([prefixes, suffix.unsqueeze(1)], dim=1)


def _groups(rows: torch.LongTensor, codebook_size: int) -> torch.LongTensor:
    """Returns a group number below n for each row of codes: `[n]` from `[n, levels]`. Equal rows get equal numbers."""
    group = rows.new_zeros(len(rows))
    for codes in rows.unbind(1):  # sorting one number per row is faster than sorting rows
        group = (group * codebook_size + codes).unique(return_inverse=True)[1]
    return group


def _rank_within(group: torch.LongTensor) -> torch.LongTensor:
    """Returns for each row how many earlier rows belong to its group: `[n]`."""
    order = group.argsort(stable=True)
    counts = group.bincount()
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(group), device=group.device) - starts[group[order]]
    return rank


def _relocate_surplus(prefixes, parent_of, codebook_size, closeness) -> torch.LongTensor:
    """Gives items after the K-th of a prefix another code at the last level, in item order."""
    rank = _rank_within(_groups(prefixes, codebook_size))
    surplus = (rank >= codebook_size).nonzero().squeeze(1)
    if not len(surplus):
        return prefixes
    prefixes = prefixes.clone()
    settled = rank < codebook_size
    taken: dict[int, torch.Tensor] = {}  # parent: items on each of its last-level codes
    numbers = torch.arange(codebook_size, device=prefixes.device)
    if closeness is None:
        near = -(numbers - prefixes[surplus, -1:]).abs().float()  # [surplus, K]
    else:
        near = closeness(surplus).float()
    for item, item_near in zip(surplus.tolist(), near):
        family = int(parent_of[item])
        if family not in taken:
            members = prefixes[settled & (parent_of == family), -1]
            taken[family] = members.bincount(minlength=codebook_size)
        code = item_near.masked_fill(taken[family] >= codebook_size, -torch.inf).argmax()
        prefixes[item, -1] = code
        taken[family][code] += 1
    return prefixes


def adler32(codes: torch.LongTensor) -> torch.LongTensor:
    """Returns `zlib.adler32` of each row's codes as little-endian 32-bit integers: `[n]` from `[n, length]`.

    >>> import zlib
    >>> adler32(torch.tensor([[7, 300]])).item() == zlib.adler32(b"\\x07\\0\\0\\0\\x2c\\x01\\0\\0")
    True
    """
    shifts = torch.arange(0, 32, 8, device=codes.device)
    octets = ((codes.unsqueeze(-1) >> shifts) & 255).flatten(1)  # [n, 4 * length]
    length = octets.shape[1]
    weights = torch.arange(length, 0, -1, device=codes.device)
    low = (1 + octets.sum(1)) % 65521
    high = (length + (octets * weights).sum(1)) % 65521
    return high * 65536 + low


@torch.no_grad()
def refresh_item_codes(
    model: ETEGRecForConditionalGeneration, strategy: str = "forge", embeddings: torch.FloatTensor | None = None
) -> dict[str, float]:
    """Computes all items' codes again with the model's RQ-VAE, batch by batch.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model whose codes are replaced.
        strategy (`str`, *optional*, defaults to `"forge"`): see [`assign_item_codes`].
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): semantic embeddings on any
            device, maybe mapped; by default the model's own.

    Returns:
        `dict`: the shares of items whose codes changed, see [`code_changes`].

    Raises:
        ValueError: no embeddings are given, and the model holds none.
        ValueError: as [`assign_item_codes`].
    """
    if embeddings is None:
        if model.catalogue.semantic_embedding is None:
            raise ValueError(
                "the model holds no `semantic_embedding`; load a model that was saved with its embeddings, or give "
                "`embeddings`."
            )
        embeddings = model.catalogue.semantic_embedding[1:]
    before, item_tokenizer = model.catalogue.item_codes, model.item_tokenizer

    def closeness(rows: torch.LongTensor) -> torch.FloatTensor:
        batches = (embeddings[few] for few in rows.to(embeddings.device).split(BATCH_SIZE))
        where = item_tokenizer.device, item_tokenizer.dtype
        return torch.cat([item_tokenizer(batch.to(*where)).code_logits[:, -1] for batch in batches])

    codes = assign_item_codes(
        item_tokenizer.encode(embeddings), model.config.codebook_size, strategy, closeness=closeness
    )
    model.set_item_codes(codes)
    return code_changes(before, model.catalogue.item_codes)


def check_capacity(n_items: int, sizes: RQVAEConfig) -> None:
    """Raises a `ValueError` if codes of these sizes, suffix included, are fewer than the items."""
    capacity = sizes.codebook_size ** (sizes.num_levels + 1)
    if n_items > capacity:
        raise ValueError(
            f"{n_items} items don't fit into {sizes.codebook_size}^{sizes.num_levels + 1} = {capacity} codes; raise "
            "`codebook_size` or `num_levels`."
        )


def build_recommender(
    item_tokenizer: RQVAEModel, embeddings: torch.FloatTensor, strategy: str = "forge", **config
) -> ETEGRecForConditionalGeneration:
    """Builds a new recommender around a trained RQ-VAE, with codes for all items.

    Args:
        item_tokenizer ([`RQVAEModel`]): trained RQ-VAE, which is copied; it must not be of a subclass.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): the items' semantic embeddings.
        strategy (`str`, *optional*, defaults to `"forge"`): see [`assign_item_codes`].
        **config: further fields of [`ETEGRecConfig`]. With `has_semantic_embedding=False` the model doesn't hold the
            embeddings. They may then be mapped, and alternating training needs them as an argument.

    Raises:
        ValueError: the item tokenizer is of a subclass.
        ValueError: the embeddings have another width, or hold NaN.
        ValueError: there are more items than codes.
        ValueError: a field is unknown.
    """
    check_item_tokenizer(item_tokenizer)
    unknown = sorted(config.keys() - ETEGRecConfig.__dataclass_fields__.keys())
    if unknown:
        raise ValueError(f"ETEGRecConfig has no field {unknown[0]!r}; see its docstring for the fields.")
    sizes = item_tokenizer.config
    check_capacity(len(embeddings), sizes)
    model = ETEGRecForConditionalGeneration(
        ETEGRecConfig(
            n_items=len(embeddings),
            code_length=sizes.num_levels + 1,
            codebook_size=sizes.codebook_size,
            rqvae_config=sizes.to_dict(),
            **config,
        )
    )
    model.item_tokenizer.load_state_dict(item_tokenizer.state_dict())
    if model.config.has_semantic_embedding:
        model.catalogue.set_semantic_embedding(embeddings)
    else:
        model.catalogue.check_embeddings(embeddings)
    refresh_item_codes(model, strategy, embeddings)
    return model
