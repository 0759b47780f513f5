"""Encoder states of users' histories, kept to be extended when the histories have grown."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import torch

from ..models.encoded_history import EncodedHistory
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from .loaded_model import LoadedModel

Tensors = dict[str, torch.Tensor]


def can_keep(model: ETEGRecForConditionalGeneration) -> bool:
    """Returns whether a model's encoder states stay as they are when a history grows."""
    return model.config.encoder_attention == "causal"


class KeptHistories:
    """Keeps the encoded histories of the users that were asked for last. Threads may share it.

    A kept history is extended if the new history begins with it and the same revision of the model encoded it.
    Otherwise the new history is encoded as a whole.

    Args:
        max_users (`int`): largest number of users.
    """

    def __init__(self, max_users: int):
        self.max_users = max_users
        self.n_extended = 0
        self._kept: OrderedDict[tuple[str, str], EncodedHistory] = OrderedDict()
        self._lock = Lock()  # for both of these; no thread holds it while a model computes

    def __len__(self) -> int:
        return len(self._kept)

    def encode(
        self, loaded: LoadedModel, user_ids: Sequence[str], input_ids: Sequence[torch.Tensor]
    ) -> EncodedHistory:
        """Encodes histories of token ids `(1, tokens)`, one per user, and keeps them."""
        model = loaded.pipeline.model
        tokens = [row.to(model.device) for row in input_ids]
        keys = [(loaded.revision, user_id) for user_id in user_ids]
        with self._lock:
            pasts = [self._kept.get(key) for key in keys]
        begins = [past is not None and is_beginning(past.input_ids, row) for past, row in zip(pasts, tokens)]
        extended = [number for number, begins_so in enumerate(begins) if begins_so]
        whole = [number for number, begins_so in enumerate(begins) if not begins_so]
        parts = []
        if whole:
            parts.append(model.encode_history(**padded([tokens[number] for number in whole])))
        if extended:
            before = [past for past, begins_so in zip(pasts, begins) if past is not None and begins_so]
            newest = [tokens[number][:, past.input_ids.shape[1] :] for number, past in zip(extended, before)]
            joined = EncodedHistory.join(before)
            is_longer = any(row.shape[1] for row in newest)
            parts.append(model.encode_history(**padded(newest), past=joined) if is_longer else joined)
        encoded = EncodedHistory.join(parts)[torch.tensor([*whole, *extended]).argsort()]
        with self._lock:
            self.n_extended += len(extended)
            for number, key in enumerate(keys):
                self._kept[key] = encoded[number]
                self._kept.move_to_end(key)
            while len(self._kept) > self.max_users:
                self._kept.popitem(last=False)
        return encoded


def is_beginning(past: torch.Tensor, history: torch.Tensor) -> bool:
    """Returns whether a history `(1, tokens)` begins with `past`, an earlier one."""
    n_tokens = past.shape[1]
    return n_tokens <= history.shape[1] and torch.equal(past, history[:, :n_tokens])


def padded(rows: Sequence[torch.Tensor]) -> Tensors:
    """Returns token ids `(1, tokens)` as one batch, padded right, with its attention mask."""
    input_ids = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
    return {"input_ids": input_ids, "attention_mask": (input_ids != 0).long()}
