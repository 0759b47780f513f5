"""Recommends with a trained model, loaded the way one loads any model of the Hub.

python examples/recommend.py MODEL ITEM_ID [ITEM_ID ...]
"""

import sys

from transformers import AutoModel, AutoTokenizer


def main(folder: str, *history: str) -> None:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    items, scores = model.recommend(**tokenizer([list(history)], return_tensors="pt"), top_k=10)
    for item_id, score in zip(tokenizer.ids_of(items[0]), scores[0].tolist()):
        print(f"{score:8.3f}  {item_id}")


if __name__ == "__main__":
    main(*sys.argv[1:])
