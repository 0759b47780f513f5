"""A model that answers requests, loaded from one state of its folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..hub.item_finder import ItemFinder
from ..hub.model_folder import load_recommender
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.pipeline_etegrec import SequentialRecommendationPipeline
from .options import ServeOptions
from .schemas import FoundItem

# Files that decide the answers of a model: a new card or training record doesn't make another model
OF_THE_MODEL = ("config.json", "*.safetensors", "item_index.json", "item_titles.json", "tokenizer_config.json")
POPULAR_SHARE = 0.1  # share of the items that count as popular, most frequent first
REVISION_LENGTH = 12  # characters of a folder's hash

FolderState = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, ready to answer.

    Args:
        pipeline ([`SequentialRecommendationPipeline`]): the pipeline that makes the answers.
        finder ([`ItemFinder`]): finder of the model's items.
        kinds (`list[str]`): by item index, how frequent an item is in training, see [`Metrics`].
        revision (`str`): commit of a model on the Hub, or a hash of a folder's files.
    """

    pipeline: SequentialRecommendationPipeline
    finder: ItemFinder
    kinds: list[str]
    revision: str

    @classmethod
    def load(cls, folder: Path, revision: str, options: ServeOptions) -> "LoadedModel":
        """Loads a folder, and answers once, so that all tables are made before the first request.

        Raises:
            FileNotFoundError: the errors of [`load_recommender`].
            ValueError: the errors of [`load_recommender`], and those of [`OnnxPipeline`] with `runtime="onnx"`.
        """
        model, tokenizer = load_recommender(str(folder))
        own_memory(model)
        pipeline: SequentialRecommendationPipeline
        if options.runtime == "onnx":
            from .onnx_pipeline import OnnxPipeline  # which needs packages of the extra `export`

            pipeline = OnnxPipeline(model.cpu(), tokenizer)
        else:
            pipeline = SequentialRecommendationPipeline(model=model, tokenizer=tokenizer)
        pipeline(tokenizer.item_ids[:1])
        return cls(pipeline, ItemFinder(model, tokenizer, tokenizer.item_titles), kinds_of_items(model), revision)

    def described(self, item_ids: list[str]) -> list[FoundItem]:
        """Returns items with their titles."""
        titles = self.pipeline.tokenizer.item_titles
        return [FoundItem(item_id=item_id, title=titles.get(item_id)) for item_id in item_ids]


def own_memory(model: ETEGRecForConditionalGeneration) -> None:
    """Copies weights that are mapped from a file into memory, as the file may be overwritten."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()


def kinds_of_items(model: ETEGRecForConditionalGeneration) -> list[str]:
    """Returns by item index how frequent each item is in training, in the words of [`Metrics`]."""
    counts = model.catalogue.item_counts.cpu()
    if not counts.any():
        return ["uncounted"] * len(counts)
    n_popular = max(1, int(POPULAR_SHARE * (len(counts) - 1)))
    popular = set(counts.topk(n_popular).indices[:n_popular].tolist())
    return [
        "cold" if not count else "popular" if index in popular else "other"
        for index, count in enumerate(counts.tolist())
    ]


def model_files(folder: Path) -> list[Path]:
    """Returns the files that decide the answers of a model, in the order of their names."""
    return sorted({path for pattern in OF_THE_MODEL for path in folder.glob(pattern)})


def folder_state(folder: Path) -> FolderState:
    """Returns names, inodes, sizes and times of a model's files, which show changes without reading the files."""
    states = [(path.name, path.stat()) for path in model_files(folder)]
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in states)


def revision_of(name: str, folder: Path) -> str:
    """Returns the commit of a model on the Hub, which names its cached folder, or a hash of a folder's files."""
    if not Path(name).is_dir():
        return folder.name
    digest = hashlib.sha256()
    for path in model_files(folder):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:REVISION_LENGTH]
