"""The reader of Amazon reviews: the files of 2014, 2018 and 2023, as they are published."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from .item_texts import texts_of_entries
from .lines import json_lines
from .log_builder import LogBuilder
from .source import TEXT_FIELDS, ItemsFile, Malformed, Source, SourceOptions, Texts, no_texts


@dataclass(frozen=True)
class Edition:
    """Names of the fields in one publication. Times are in seconds in 2014 and 2018, in milliseconds in 2023."""

    user: str
    item: str
    time: str
    renamed: dict[str, str] = field(default_factory=dict)  # our name of a text to the metadata's, if they differ
    literals: bool = False  # whether the metadata is written as Python literals


EDITIONS = {
    "amazon2014": Edition("reviewerID", "asin", "unixReviewTime", literals=True),
    "amazon2018": Edition("reviewerID", "asin", "unixReviewTime", {"categories": "category"}),
    # variants of a product (colours, sizes) share the parent's id, which is also the id in the metadata
    "amazon2023": Edition("user_id", "parent_asin", "timestamp", {"brand": "store"}),
}
SUFFIXES = r"\.jsonl?(\.(gz|bz2|zst))?$"


def read_amazon(edition: str, path: Path, options: SourceOptions) -> Source:
    """Reads a review file, or a folder with one, and its metadata file.

    The metadata file is `options.items`, or by default `meta_NAME` in the same folder.

    Raises:
        FileNotFoundError: no file of reviews, or several.
        ValueError: too many malformed lines, or no interaction.
        ValueError: ids of mixed types.
    """
    names = EDITIONS[edition]
    reviews = _review_file(path)
    malformed = Malformed(reviews)
    log = LogBuilder(reviews, malformed, names.user, names.item, names.time)
    columns: dict[str, None] = {}
    for number, entry in json_lines(reviews, malformed):
        log.add(number, entry)
        if not entry.keys() <= columns.keys():
            columns |= dict.fromkeys(entry)
    malformed.check(options.max_malformed)
    unused = [name for name in columns if name not in (names.user, names.item, names.time)]
    source = Source(log.build(), no_texts, order=names.time, malformed=[malformed], unused=unused)
    metadata = Path(options.items) if options.items else _metadata_file(reviews)
    if metadata is None:
        return source
    fields = dict(zip(TEXT_FIELDS, TEXT_FIELDS)) | names.renamed
    file = ItemsFile(Malformed(metadata), names.item, fields)
    read_texts = partial(_read_texts, file, names.literals, options.max_malformed)
    return replace(source, read_texts=read_texts, items_file=file)


def _review_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [file for file in sorted(path.iterdir()) if re.search(SUFFIXES, file.name)]
    found = [file for file in found if not file.name.startswith("meta_")]
    if len(found) != 1:
        raise FileNotFoundError(
            f"{path} holds {len(found)} files of reviews (.json or .jsonl, packed or not); give the path of one file."
        )
    return found[0]


def _metadata_file(reviews: Path) -> Path | None:
    """Finds the metadata file, if it exists.

    It is `meta_Office.json.gz` for `Office.json.gz`, `Office_5.json.gz` or `reviews_Office_5.json.gz`.
    """
    category = re.sub(r"_\d+$", "", re.sub(SUFFIXES, "", reviews.name)).removeprefix("reviews_")
    for name in sorted(reviews.parent.glob("meta_*")):
        if re.sub(SUFFIXES, "", name.name) == f"meta_{category}":
            return name
    return None


def _read_texts(file: ItemsFile, literals: bool, max_malformed: float, item_ids: Collection[str]) -> Texts:
    entries = json_lines(file.malformed.path, file.malformed, literals)
    texts = texts_of_entries(entries, item_ids, file)
    file.malformed.check(max_malformed)
    return texts
