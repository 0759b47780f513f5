"""The card of a prepared dataset, from which the Hub knows how to open it."""

import html
from pathlib import Path

import yaml

from .named_embeddings import embedding_names
from .splits import SPLIT_NAMES

UNKNOWN = "unknown"
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
)

CARD = """---
{metadata}---

# {name}

Interactions of users with items, prepared by etegrec_hf for sequential recommendation.

`sequences` has the columns `user_id`, `history` (oldest first) and `target`. A training row is a user's whole training
sequence, and training uses each item after the first as a target. `items` has the column `item_id` and, as far as they
are known, texts, numbers and categories, `embedding` (the semantic embedding), and `codes` (token strings that came
with the log; training makes its own).

```python
from datasets import load_dataset

sequences = load_dataset("{name}", "sequences")
items = load_dataset("{name}", "items", split="train")
```

| | |
| --- | --- |
{rows}
"""


def dataset_card(folder: Path, name: str, statistics: dict) -> str:
    """Returns the text of `README.md`.

    Args:
        folder (`Path`): folder of the dataset, whose embeddings are listed.
        name (`str`): folder or Hub id that the example in the card opens.
        statistics (`dict`): counts and how the data was made, with `license`.
    """
    files = [{"split": split, "path": f"sequences/{split}.parquet"} for split in SPLIT_NAMES]
    configs: list[dict] = [{"config_name": "sequences", "default": True, "data_files": files}]
    configs.append({"config_name": "items", "data_files": [{"split": "train", "path": "items/items.parquet"}]})
    for embedding in embedding_names(folder):
        files = [{"split": "train", "path": f"embeddings/{embedding}.parquet"}]
        configs.append({"config_name": f"embedding_{embedding}", "data_files": files})
    count = statistics.get("interactions", 0)
    metadata = {
        "license": statistics.get("license", UNKNOWN),
        "tags": ["recommendation", "sequential-recommendation", "etegrec"],
        "size_categories": [next((size for limit, size in SIZES if count < limit), "10B<n<100B")],
        "configs": configs,
    }
    rows = "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in statistics.items())
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return CARD.format(metadata=text, name=name, rows=rows)


def license_of(card: str) -> str | list[str]:
    """Returns the license that a card names, several licenses as a list, or `"unknown"`."""
    parts = card.split("---\n", 2)
    try:
        metadata = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        metadata = None
    named = metadata.get("license") if isinstance(metadata, dict) else None
    licenses = [str(name) for name in (named if isinstance(named, list) else [named]) if name]
    return licenses if len(licenses) > 1 else (licenses or [UNKNOWN])[0]


def _cell(value) -> str:
    """Returns a value, or a list of values, as text for a Markdown table, with markup escaped."""
    value = ", ".join(map(str, value)) if isinstance(value, list) else value
    return html.escape(" ".join(str(value).split())).replace("|", "&#124;").replace("`", "&#96;")
