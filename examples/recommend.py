# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "transformers"]
# ///
"""Recommends items with a trained model, which is loaded like any model of the Hub.

    python examples/recommend.py MODEL ITEM_ID [ITEM_ID ...]

MODEL is a folder or an id on the Hub.
"""

import sys

from transformers import pipeline


def main(name: str, *history: str) -> None:
    recommend = pipeline("sequential-recommendation", model=name, trust_remote_code=True)
    for item in recommend(list(history), top_k=10):
        print(f"{item['score']:8.3f}  {item['item_id']}  {item.get('title', '')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
