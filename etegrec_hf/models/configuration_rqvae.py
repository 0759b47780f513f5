"""Configuration of the item tokenizer."""

from transformers import PreTrainedConfig

DISTANCES = ("l2", "cosine", "dot")


def check_class(name: str, expected: str, found: list[str]) -> None:
    """Raises a `ValueError` unless a class is the one that is expected, in this package or in a model folder's code.

    A recommender saves sizes and weights of its item tokenizer. What a subclass does besides would be lost with it.

    Args:
        name (`str`): the argument, as the error calls it.
        expected (`str`): the class's name.
        found (`list[str]`): names of a class and of its parents, the class itself first.
    """
    if found[:1] != [expected] or found.count(expected) > 1:
        raise ValueError(
            f"`{name}` is of the class {found[0]!r}, which a recommender would swap for {expected!r} itself, with "
            f"other codes: item tokenizers can't be exchanged yet; give a {expected}."
        )


class RQVAEConfig(PreTrainedConfig):
    """Sizes and loss weights of an [`RQVAEModel`].

    Args:
        input_size (`int`, *optional*, defaults to 1024): width of an item's semantic embedding.
        hidden_sizes (`tuple[int]`, *optional*, defaults to `(512, 256)`): widths between input and latent.
        latent_size (`int`, *optional*, defaults to 128): width of latents and codebook vectors.
        num_levels (`int`, *optional*, defaults to 3): residual codebooks, one code each.
        codebook_size (`int`, *optional*, defaults to 256): vectors in each codebook.
        commitment_weight (`float`, *optional*, defaults to 0.25): the paper's beta, which pulls latents to codes.
        quantization_weight (`float`, *optional*, defaults to 1.0): the paper's alpha, against reconstruction.
        distance (`str`, *optional*, defaults to `"l2"`): how the nearest code is found: `"l2"` (squared), `"cosine"`
            or `"dot"`.

    Raises:
        ValueError: a size below 1, or a distance that does not exist.

    Source: seed section 2.2; ETEGRec, section 3.2.1.
    """

    model_type = "etegrec_rqvae"

    input_size: int = 1024
    hidden_sizes: tuple[int, ...] | list[int] = (512, 256)
    latent_size: int = 128
    num_levels: int = 3
    codebook_size: int = 256
    commitment_weight: float = 0.25
    quantization_weight: float = 1.0
    distance: str = "l2"

    def __post_init__(self, **kwargs):
        self.hidden_sizes = list(self.hidden_sizes)
        for name in ("input_size", "latent_size", "num_levels", "codebook_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        if self.distance not in DISTANCES:
            raise ValueError(f"`distance` is {self.distance!r}; choose one of {', '.join(DISTANCES)}.")
        super().__post_init__(**kwargs)


RQVAEConfig.register_for_auto_class()
