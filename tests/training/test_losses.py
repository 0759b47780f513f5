import math

import torch

from etegrec_hf.training.recommender.losses import (
    Negatives,
    first_of_each,
    preference_semantic_alignment,
    sequence_item_alignment,
)


def test_sia_by_hand():
    # softmax of log-probabilities is those probabilities: p = (.5, .5), q = (.8, .2)
    p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.8, 0.2]]]).log()
    by_hand = (
        0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2) + 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    )
    torch.testing.assert_close(sequence_item_alignment(p, q), torch.tensor(by_hand))
    same = torch.randn(3, 2, 4)
    assert sequence_item_alignment(same, same + 1.5) < 1e-6, "a constant changes no distribution"


def test_sia_averages_over_targets_and_levels():
    one, two = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    cells = [sequence_item_alignment(one[b : b + 1, [i]], two[b : b + 1, [i]]) for b in range(2) for i in range(3)]
    torch.testing.assert_close(sequence_item_alignment(one, two), torch.stack(cells).mean())


def test_psa_by_hand():
    preference = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    reconstruction = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    # cosines: rows (1, .7071), (0, .7071)
    tau, r = 0.5, 1 / math.sqrt(2)
    e = lambda value: math.exp(value / tau)  # noqa: E731
    rows = [-math.log(e(1) / (e(1) + e(r))), -math.log(e(r) / (e(0) + e(r)))]
    columns = [-math.log(e(1) / (e(1) + e(0))), -math.log(e(r) / (e(r) + e(r)))]
    expected = torch.tensor((sum(rows) + sum(columns)) / 2)
    torch.testing.assert_close(preference_semantic_alignment(preference, reconstruction, tau), expected)


def test_psa_in_parts_with_each_others_negatives_is_that_of_the_whole():
    torch.manual_seed(0)
    preference, reconstruction = torch.randn(5, 4), torch.randn(5, 4)

    def part(own, other):
        is_same = torch.zeros(len(preference[own]), len(preference[other]), dtype=torch.bool)
        others = Negatives(preference[other], reconstruction[other], is_same)
        return preference_semantic_alignment(preference[own], reconstruction[own], 0.5, others)

    first, last = slice(0, 3), slice(3, 5)
    in_parts = (3 * part(first, last) + 2 * part(last, first)) / 5
    torch.testing.assert_close(in_parts, preference_semantic_alignment(preference, reconstruction, 0.5))


def test_the_same_item_elsewhere_is_no_negative_of_psa():
    torch.manual_seed(0)
    preference, reconstruction = torch.randn(3, 4), torch.randn(3, 4)
    further = torch.randn(1, 4), torch.randn(1, 4)
    is_same = torch.tensor([[True], [True], [True]])
    alone = preference_semantic_alignment(preference, reconstruction)
    assert preference_semantic_alignment(preference, reconstruction, others=Negatives(*further, is_same)) == alone
    some = preference_semantic_alignment(preference, reconstruction, others=Negatives(*further, ~is_same))
    assert some > alone, "a negative more"


def test_alignments_of_bfloat16_inputs_are_computed_in_float32():
    one, two = (torch.randn(4, 6) * 30).bfloat16(), torch.randn(4, 6).bfloat16()
    expected = preference_semantic_alignment(one.float(), two.float())
    torch.testing.assert_close(preference_semantic_alignment(one, two), expected)
    one, two = one.unsqueeze(1), two.unsqueeze(1)
    torch.testing.assert_close(sequence_item_alignment(one, two), sequence_item_alignment(one.float(), two.float()))


def test_first_of_each():
    distinct, first = first_of_each(torch.tensor([7, 3, 7, 9, 3]))
    assert distinct.tolist() == [3, 7, 9]
    assert first.tolist() == [1, 0, 3]
