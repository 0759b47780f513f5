"""What ships to a Hub repository, verbatim: models, code trie, decoding and tokenizer."""

# Before any module of this folder: it comes with our configurations (../registration.py), and would find one of them
# half imported if that one asked for it.
from transformers import AutoConfig as AutoConfig
