import pytest
import torch

from etegrec_hf import ETEGRecTrainingArguments
from etegrec_hf.training.recommender.arguments import FinetuningArguments
from etegrec_hf.training.recommender.schedule import PhaseScheduler


def two_groups():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 0.1}])
    return parameters, optimizer, PhaseScheduler(optimizer, [lambda step: 0.5**step, lambda step: 1 - step / 10])


def test_only_the_group_that_is_trained_advances():
    parameters, optimizer, scheduler = two_groups()
    parameters[1].requires_grad_(False)
    scheduler.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.1]
    parameters[0].requires_grad_(False)
    parameters[1].requires_grad_(True)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, pytest.approx(0.09)]
    assert scheduler.get_last_lr() == [pytest.approx(0.09), 0.25], "what is trained now comes first"


def test_a_further_run_starts_from_the_first_learning_rates():
    parameters, optimizer, scheduler = two_groups()
    for _ in range(3):
        scheduler.step()
    again = PhaseScheduler(optimizer, [lambda step: 0.5**step, lambda step: 1 - step / 10])
    assert again.get_last_lr() == [1.0, 0.1]
    assert all(parameter.requires_grad for parameter in parameters)


def test_a_restored_schedule_goes_on():
    parameters, _, scheduler = two_groups()
    parameters[1].requires_grad_(False)
    scheduler.step()
    _, optimizer, copy = two_groups()
    copy.load_state_dict(scheduler.state_dict())
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]


def test_cycles_begin_with_the_tokenizer(tmp_path):
    args = ETEGRecTrainingArguments(str(tmp_path), cycle=3, num_train_epochs=9)
    assert [args.phase(epoch)[0] for epoch in range(7)] == list("trrtrrt")
    assert {FinetuningArguments(str(tmp_path)).phase(epoch) for epoch in range(4)} == {"finetune"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycle": 1}, "`cycle` is 1; a cycle needs at least 2 epochs"),
        ({"torch_compile": True}, "`torch_compile` is True, which isn't supported"),
        ({"psa_weight": -1.0}, "`psa_weight` is -1.0; a loss weight can't be negative"),
        ({"temperature": 0.0}, "`temperature` is 0.0; it must be positive"),
        (
            {"num_beams": 9},
            "`num_beams` is 9 and `metric_for_best_model` is 'ndcg@10', .* with 10 beams or more",
        ),
        ({"num_beams": 0, "metric_for_best_model": None}, "`num_beams` is 0"),
        (
            {"early_stopping_patience": 3, "eval_strategy": "no", "load_best_model_at_end": False},
            "`early_stopping_patience` is 3 and `eval_strategy` is 'no'",
        ),
        (
            {"metric_for_best_model": "eval_loss"},
            "`metric_for_best_model` is 'eval_loss'; choose recall@k or ndcg@k",
        ),
        (
            {"metric_for_best_model": "ndcg@7"},
            "`metric_for_best_model` is 'ndcg@7'; choose recall@k or ndcg@k with k in",
        ),
        ({"num_train_epochs": 1}, "the last epoch would train the tokenizer, .* choose 2"),
        ({"num_train_epochs": 6.5, "cycle": 3}, "the last epoch would train the tokenizer, .* choose 8"),
    ],
)
def test_impossible_arguments_are_an_error(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ETEGRecTrainingArguments(str(tmp_path), **options)
