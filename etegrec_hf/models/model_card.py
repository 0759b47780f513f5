"""The model card: templates that are filled from the model's configuration, and with further sections if given."""

import json
import os
from typing import Any

from transformers.utils import PushToHubMixin

from .file_modes import set_usual_modes

CITATION = """@inproceedings{etegrec,
  title     = {Generative Recommender with End-to-End Learnable Item Tokenization},
  booktitle = {Proceedings of SIGIR 2025},
  doi       = {10.1145/3726302.3729989}
}"""

METADATA = """library_name: transformers
pipeline_tag: other
tags:
- recommendation
- sequential-recommendation
- generative-recommendation
- semantic-ids
- {model_type}
"""

RECOMMENDER = """\
A recommender by the method of ETEGRec ([doi 10.1145/3726302.3729989](https://doi.org/10.1145/3726302.3729989)).
It reads a user's history as a list of item ids, oldest first, and generates the next item as {code_length} numbers,
its codes. Every recommendation is one of its {n_items:,} items.

## Use it

```python
from transformers import pipeline

recommend = pipeline("sequential-recommendation", model="{name}", trust_remote_code=True)
print(recommend([{example}], top_k=10))
```

It needs torch and transformers, nothing else. Lists of histories are decoded in batches, and generators are streamed.
`exclude=[...]`, `exclude_history=True` and `allowed=[...]` restrict which items are searched. Options that a call
leaves out (`num_beams`, `transition_weight`, ...) are the model's own search settings, below. `AutoModel` and
`AutoTokenizer` load the parts (`model.recommend`, `model.generate`, `model.add_items`, `model.remove_items`).

## What it is

| | |
| --- | --- |
| items | {n_items:,} |
| codes per item | {code_length}, each one of {codebook_size} |
| encoder and decoder | T5, {num_layers} + {num_decoder_layers} layers of width {d_model} |
| history | the last {max_history} items |
| search settings | {searched} |
| item tokenizer | {item_tokenizer} |
| semantic embeddings | {embeddings} |
"""

ITEM_TOKENIZER = """The item tokenizer of an ETEGRec recommender: an RQ-VAE that turns an item's embedding into
{num_levels} codes, one of {codebook_size} at each level.

## Use it

```python
from transformers import AutoModel

item_tokenizer = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()
codes = item_tokenizer.encode(embeddings)  # [n, {input_size}] to [n, {num_levels}]
```

`etegrec train --tokenizer {name}` trains a recommender around it.

## What it is

| | |
| --- | --- |
| embeddings | {input_size} wide |
| hidden layers | {hidden_sizes} |
| latents and codebook vectors | {latent_size} wide, {distance} distance |
| codes | {num_levels} levels of {codebook_size} |
"""

LIMITS = """## Limits

- It ranks the items of the catalogue that it was trained on. It serves popular items and frequent users best, and
  repeats the biases of its log.
- Scores are log-probabilities of the model, which options of `recommend` may change. They aren't calibrated
  probabilities that a user takes an item.
- A model remembers which items were taken together. User ids are not stored.
"""


def card_text(config: Any, name: str, metadata: str = "", sections: str = "", example: str = "an item id") -> str:
    """Returns the text of a model card.

    Args:
        config ([`ETEGRecConfig`] or [`RQVAEConfig`]): the model's configuration.
        name (`str`): Hub id or folder that the model is loaded from.
        metadata (`str`, *optional*): YAML metadata; by default that of every model of this kind.
        sections (`str`, *optional*): Markdown about data, results and training.
        example (`str`, *optional*): an item id for the code example.
    """
    known = {**config.to_dict(), "name": name, "example": json.dumps(example, ensure_ascii=False)}
    body, limits = ITEM_TOKENIZER, ""
    if config.model_type == "etegrec":
        body, limits = RECOMMENDER, LIMITS
        sizes = config.rqvae_config
        known["item_tokenizer"] = f"RQ-VAE from {sizes.input_size} to {sizes.latent_size} dimensions"
        if not config.has_item_tokenizer:
            known["item_tokenizer"] = "none: its codes were made elsewhere"
        known["searched"] = written_settings(config.search_settings) or "the defaults of `recommend`"
        known["embeddings"] = (
            "included" if config.has_semantic_embedding else "left out: training and re-ranking need them"
        )
    parts = [
        f"---\n{(metadata or METADATA.format(model_type=config.model_type)).strip()}\n---\n",
        f"# {name.rstrip('/').split('/')[-1]}\n",
        body.format(**known),
        sections,
        limits,
        f"## Citation\n\n```bibtex\n{CITATION}\n```\n\nMade with etegrec_hf.",
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def written_settings(settings: dict[str, Any]) -> str:
    """Returns search settings written as arguments of a call of `recommend`."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


class ModelCardMixin(PushToHubMixin):
    """Overrides `save_pretrained` and a hook of `push_to_hub`.

    - `save_pretrained` gives weights the same permissions as the other files.
    - `_upload_modified_files` adds a model card to a repository that has none yet.
    """

    def save_pretrained(self, save_directory, *args, **kwargs):
        super().save_pretrained(save_directory, *args, **kwargs)
        set_usual_modes(save_directory)

    def _upload_modified_files(self, working_dir, repo_id, *args, **kwargs):
        path = os.path.join(working_dir, "README.md")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        is_blank_form = "This model card has been automatically generated." in text and "Model ID\n" in text
        if is_blank_form:  # transformers has just written it, as the repository has no card
            with open(path, "w", encoding="utf-8") as file:
                file.write(card_text(self.config, repo_id))
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)
