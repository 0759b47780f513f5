"""What ships to a Hub repository, verbatim: models, code trie, decoding and tokenizer."""
