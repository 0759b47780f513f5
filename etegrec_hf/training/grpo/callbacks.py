"""Rounds of completions, and the model before the first of them."""

from transformers import TrainerCallback


class StartingPointCallback(TrainerCallback):
    """Evaluates the model before its first step, so that whatever training does is seen beside it.

    Where the best checkpoint is kept, the starting model is one, and is what remains if nothing gets better.

    Args:
        trainer (`Trainer`): it is evaluated and saved by its own methods.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.log_history and args.eval_strategy != "no":
            metrics = self.trainer.evaluate()
            if args.load_best_model_at_end:
                self.trainer._determine_best_metric(metrics, trial=None)
                self.trainer._save_checkpoint(self.trainer.model_wrapped, trial=None)


class GenerationBorderCallback(TrainerCallback):
    """Postpones what is due while completions are still being trained on until new ones are to be generated.

    Completions in use are in no checkpoint, so a run resumed from one in between would generate others.

    Args:
        batches (`int`): that a round of completions is trained on.
    """

    def __init__(self, batches: int):
        self.batches = batches
        self.save = self.evaluate = False

    def on_step_end(self, args, state, control, **kwargs):
        self.save |= control.should_save
        self.evaluate |= control.should_evaluate
        border = state.global_step * args.gradient_accumulation_steps % self.batches == 0
        if border or control.should_training_stop:
            control.should_save, control.should_evaluate = self.save, self.evaluate
            self.save = self.evaluate = False
        else:
            control.should_save = control.should_evaluate = False
