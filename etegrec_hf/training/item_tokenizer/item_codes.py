"""Unique codes for a catalogue, and a recommender that has them."""

from collections.abc import Callable

import torch

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
    """Appends a suffix to each prefix so that no two items share their codes.

    Args:
        prefixes (`torch.LongTensor` of shape `(n_items, code_length - 1)`): the RQ-VAE's codes.
        codebook_size (`int`): K; codes and suffixes are `0..K-1`.
        strategy (`str`, *optional*, defaults to `"forge"`):

            - `"forge"`: items of one prefix get the suffixes `(offset + i) % K`, i counted in item order, the offset
              an Adler-32 checksum of the prefix (its codes as little-endian 32-bit integers).
            - `"count"`: 0, 1, 2, ... in item order (TIGER, the original ETEGRec).
            - `"balance"`: the last level's code is dealt round-robin among the items that share the codes before it.

        closeness (`Callable`, *optional*): from rows of `prefixes` `[n]` to how near those items are to each code of
            the last level, `[n, K]`. When more than K items share a prefix, the surplus takes the nearest last-level
            code that has room; by default near means a near number.

    Returns:
        `torch.LongTensor` `[n_items, code_length]`.

    Raises:
        ValueError: an unknown strategy, codes out of range, or more items than codes below one parent.

    Source: DESIGN section 5; seed section 9.2, whose Python `hash` is replaced by one that is the same everywhere.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"`code_strategy` is {strategy!r}; choose one of {', '.join(STRATEGIES)}.")
    if len(prefixes) and not (prefixes.min() >= 0 and prefixes.max() < codebook_size):
        raise ValueError(f"`prefixes` holds codes outside 0..{codebook_size - 1}; check `codebook_size`.")
    prefixes = prefixes.long()
    parent = prefixes[:, :-1]
    parent_of = _groups(parent, codebook_size)
    family = parent_of.bincount()  # items below each parent
    if len(prefixes) and family.max() > codebook_size**2:
        raise ValueError(
            f"{family.max().item()} items share all codes before the last level, which has room for "
            f"{codebook_size}^2 = {codebook_size**2}; raise `codebook_size` or `code_length`, or train an item "
            "tokenizer that collapses less."
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
    """A number `[n]` for each of the rows `[n, levels]` of codes, the same for equal rows and below n."""
    group = rows.new_zeros(len(rows))
    for codes in rows.unbind(1):  # one number a row sorts faster than a row of them
        group = (group * codebook_size + codes).unique(return_inverse=True)[1]
    return group


def _rank_within(group: torch.LongTensor) -> torch.LongTensor:
    """How many earlier rows belong to the same group: `[n]`."""
    order = group.argsort(stable=True)
    counts = group.bincount()
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(group), device=group.device) - starts[group[order]]
    return rank


def _relocate_surplus(prefixes, parent_of, codebook_size, closeness) -> torch.LongTensor:
    """Moves the items beyond the K-th of a prefix to other last-level codes of their parent, in item order."""
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
    """`zlib.adler32` of each row's codes as little-endian 32-bit integers: `[n]` from `[n, length]`.

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
    """Computes all items' codes again from the model's RQ-VAE, batch by batch.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): gets the codes.
        strategy (`str`, *optional*, defaults to `"forge"`): see [`assign_item_codes`].
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): semantic embeddings on any
            device, maybe mapped; by default those that the model holds.

    Returns:
        `dict`: the shares of items whose codes changed, see [`code_changes`].

    Raises:
        ValueError: neither are there embeddings nor does the model hold some, or the codes don't fit.
    """
    if embeddings is None:
        if model.catalogue.semantic_embedding is None:
            raise ValueError(
                "the model holds no `semantic_embedding`; load one saved with its embeddings, or give `embeddings`."
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
    """Raises a `ValueError` if an RQ-VAE of these sizes, with a suffix, has fewer codes than there are items."""
    capacity = sizes.codebook_size ** (sizes.num_levels + 1)
    if n_items > capacity:
        raise ValueError(
            f"{n_items} items don't fit into {sizes.codebook_size}^{sizes.num_levels + 1} = {capacity} codes; raise "
            "`codebook_size` or `num_levels`."
        )


def build_recommender(
    item_tokenizer: RQVAEModel, embeddings: torch.FloatTensor, strategy: str = "forge", **config
) -> ETEGRecForConditionalGeneration:
    """A new recommender around a trained RQ-VAE, its catalogue ready.

    Args:
        item_tokenizer ([`RQVAEModel`]): copied into the recommender; no subclass.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): the items' semantic embeddings.
        strategy (`str`, *optional*, defaults to `"forge"`): see [`assign_item_codes`].
        **config: further fields of [`ETEGRecConfig`]; with `has_semantic_embedding=False` the model doesn't hold the
            embeddings, which may then be mapped, and alternating training is given them too.

    Raises:
        ValueError: an item tokenizer of a subclass, embeddings of another width, with NaN, more items than codes, or
            an unknown field.
    """
    check_item_tokenizer(item_tokenizer)
    unknown = sorted(config.keys() - ETEGRecConfig.__dataclass_fields__.keys())
    if unknown:
        raise ValueError(f"ETEGRecConfig has no field {unknown[0]!r}; its docstring lists those that exist.")
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
