"""Configuration of the item tokenizer."""

from transformers import PreTrainedConfig

DISTANCES = ("l2", "cosine", "dot")


def check_class(name: str, expected: str, found: list[str]) -> None:
    """Raises a `ValueError` unless a class is the expected one, in this package or in a model folder's code.

    A recommender saves only the sizes and weights of its item tokenizer, so that changes of a subclass would be lost.

    Args:
        name (`str`): name of the argument in the error.
        expected (`str`): name of the expected class.
        found (`list[str]`): names of the class that was given and of its parents, the class itself first.
    """
    if found[:1] != [expected] or found.count(expected) > 1:
        raise ValueError(
            f"`{name}` is of the class {found[0]!r}, but a recommender would save and load it as {expected!r}, which "
            f"might give other codes; give an {expected}, as other item tokenizers aren't supported yet."
        )


class RQVAEConfig(PreTrainedConfig):
    """Sizes and loss weights of an [`RQVAEModel`].

    Args:
        input_size (`int`, *optional*, defaults to 1024): width of an item's semantic embedding.
        hidden_sizes (`tuple[int]`, *optional*, defaults to `(512, 256)`): widths between input and latent.
        latent_size (`int`, *optional*, defaults to 128): width of latents and codebook vectors.
        num_levels (`int`, *optional*, defaults to 3): residual codebooks; an item gets one code from each.
        codebook_size (`int`, *optional*, defaults to 256): vectors per codebook.
        commitment_weight (`float`, *optional*, defaults to 0.25): beta: weight of the commitment loss, which
            pulls latents to their codebook vectors.
        quantization_weight (`float`, *optional*, defaults to 1.0): alpha: weight of the quantisation loss; the
            reconstruction loss has weight 1.
        distance (`str`, *optional*, defaults to `"l2"`): measure by which the nearest codebook vector is found:
            `"l2"` (squared), `"cosine"` or `"dot"`.

    Raises:
        ValueError: a size below 1.
        ValueError: an unknown distance.

    Source: specification, sections 2.2 and 4.2 (alpha and beta); ETEGRec, section 3.2.1.
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
        if any(width < 1 for width in self.hidden_sizes):
            raise ValueError(f"`hidden_sizes` is {self.hidden_sizes}; each width must be at least 1.")
        if self.distance not in DISTANCES:
            raise ValueError(f"`distance` is {self.distance!r}; choose one of {', '.join(DISTANCES)}.")
        super().__post_init__(**kwargs)


RQVAEConfig.register_for_auto_class()
