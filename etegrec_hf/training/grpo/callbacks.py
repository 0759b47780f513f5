"""Evaluation of the starting model, and checkpoints between rounds of completions."""

from transformers import TrainerCallback


class StartingPointCallback(TrainerCallback):
    """Evaluates the model before its first step, so that later evaluations can be compared with it.

    If the best checkpoint is kept, the starting model is a checkpoint too, and is kept if training doesn't improve it.

    Args:
        trainer (`Trainer`): the trainer whose methods evaluate and save the model.
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
    """Postpones evaluations and checkpoints until the current round of completions has been trained on.

    Checkpoints don't hold completions, so a run that is resumed in the middle of a round would generate others.

    Args:
        batches (`int`): number of batches that a round of completions is trained on.
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
