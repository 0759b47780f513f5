"""What ships to a Hub repository, verbatim: models, code trie, decoding and tokenizer."""

# Before any module of this folder: the first two import our configurations and tokenizer (../registration.py), which
# would be half imported if they came first
from transformers.models.auto import AutoConfig, AutoModel, AutoTokenizer

__all__ = ["AutoConfig", "AutoModel", "AutoTokenizer"]
