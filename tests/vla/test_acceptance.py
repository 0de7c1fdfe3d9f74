"""Rules by which hidden words are written down: their formulas, and that the most certain word always passes."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from vla.decoding.acceptance import RULES, confidence, entropy, factor

HIDDEN = torch.tensor([[True, False, True, True, True], [True, True, True, True, False]])


@dataclass(frozen=True)
class Case:
    logits: Tensor
    hidden: Tensor


@pytest.fixture(params=range(4))
def case(request: pytest.FixtureRequest) -> Case:
    random = torch.Generator().manual_seed(request.param)
    return Case(3 * torch.randn(2, 5, 8, generator=random), HIDDEN)


@pytest.mark.parametrize(("rule", "knob"), [("confidence", 1.0), ("factor", 1e-6), ("entropy", 1e-9)])
def test_the_strictest_setting_writes_the_most_certain_word_alone(case: Case, rule: str, knob: float) -> None:
    accepted = RULES[rule](knob)(case.logits, case.hidden)
    assert (accepted.sum(dim=1) == 1).all()
    certain = case.logits.softmax(-1).amax(-1) if rule != "entropy" else -Categorical(logits=case.logits).entropy()
    assert torch.equal(accepted.long().argmax(dim=1), certain.masked_fill(~case.hidden, -torch.inf).argmax(dim=1))


@pytest.mark.parametrize(("rule", "knob"), [("confidence", 1e-6), ("factor", 1e6), ("entropy", 1e6)])
def test_the_loosest_setting_writes_every_hidden_word(case: Case, rule: str, knob: float) -> None:
    assert torch.equal(RULES[rule](knob)(case.logits, case.hidden), case.hidden)


def test_confidence_is_the_probability_of_the_likeliest_id(case: Case) -> None:
    accepted = confidence(0.6)(case.logits, case.hidden)
    certain = case.logits.softmax(-1).amax(-1)
    assert accepted[(certain >= 0.6) & case.hidden].all()
    assert accepted.sum() <= ((certain >= 0.6) & case.hidden).sum() + 2  # one more in a row where none is certain


@pytest.mark.parametrize("most", [0.3, 1.0, 2.5])
def test_factor_takes_the_largest_number_that_fits(case: Case, most: float) -> None:
    accepted = factor(most)(case.logits, case.hidden)
    for row in range(2):
        certain = case.logits[row].softmax(-1).amax(-1)[case.hidden[row]].sort(descending=True).values.tolist()
        fitting = [n for n, p in enumerate(certain, 1) if (n + 1) * (1 - p) <= most]
        assert accepted[row].sum() == max([1, *fitting])


@pytest.mark.parametrize("bound", [0.1, 0.7, 2.0])
def test_entropies_but_the_largest_add_up_to_the_bound_at_most(case: Case, bound: float) -> None:
    accepted = entropy(bound)(case.logits, case.hidden)
    for row in range(2):
        spread = Categorical(logits=case.logits[row]).entropy()[case.hidden[row]].sort().values
        expected = int((spread.cumsum(0) - spread <= bound).sum())
        assert accepted[row].sum() == expected
