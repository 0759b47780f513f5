"""Training that stops where its loss stops being a number."""

import json
import math
from pathlib import Path

from transformers import Trainer

from ...data.folders import replace_file


class FiniteLoss(Trainer):
    """A Trainer that ends at the first loss that is NaN or infinite, before the weights are updated with it.

    Overrides `training_step`. The step and its batch are kept in `output_dir`, and checkpoints stay as they are.
    """

    def training_step(self, model, inputs, *args, **kwargs):
        """As Trainer's.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        loss = super().training_step(model, inputs, *args, **kwargs)
        value = loss.item()  # in the place of Trainer's own `logging_nan_inf_filter`, which waits for the device too
        if not math.isfinite(value):
            step = self.state.global_step + 1
            path = Path(self.args.output_dir, f"loss_{value}_step{step}_process{self.args.process_index}.json")
            told = {"step": step, "epoch": self.state.epoch, "loss": value, "batch": inputs}
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(told, default=lambda array: array.tolist())
            replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
            raise FloatingPointError(
                f"the loss is {value} at step {step}; its batch is kept in {str(path)!r}. Resume from the newest "
                "checkpoint with a lower learning rate, or repair the data if that batch alone does it."
            )
        return loss
