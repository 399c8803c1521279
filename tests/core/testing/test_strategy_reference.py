import pytest
import torch
from decodekit.testing.models import MarkovModel
from decodekit.testing.strategy_case import Case
from decodekit.testing.strategy_models import KitModel
from decodekit.testing.strategy_reference import greedy_tokens, scores, sequence_law
from decodekit.testing.strategy_toys import Damp, Tire
from decodekit_strategies.greedy import Greedy

P = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.25, 0.25, 0.5]], dtype=torch.float64)


def case(**changes):
    model = KitModel("a table", MarkovModel(P.log()), 3)
    values = {"strategy": Greedy(), "model": model, "prompts": [[0]], "seeds": [0], "max_new_tokens": 2}
    return Case(**{**values, **changes})


def test_the_law_of_sequences_is_the_product_of_the_table():
    law = sequence_law(case(eos=(2,)), [1, 0])
    assert law == pytest.approx(
        {(0, 0): 0.25, (0, 1): 0.15, (0, 2): 0.1, (1, 0): 0.03, (1, 1): 0.27, (2,): 0.2}
    )


def test_greedy_tokens_end_at_eos_or_the_length():
    assert greedy_tokens(case(max_new_tokens=4), [1]) == [1, 1, 1, 1]
    assert greedy_tokens(case(max_new_tokens=4, eos=(1,)), [1]) == [1]


def test_scores_walk_through_histories_and_states():
    found = scores(case(processors=(Damp(), Tire())), [1], [1, 1])
    raw = P.log()[1]
    surprise = -float(raw.log_softmax(-1)[1])
    lowered = (raw - torch.tensor([0, 1.5, 0])) / (1 + surprise)
    assert torch.allclose(found[0], raw)
    assert torch.allclose(found[1], lowered)
    assert len(found) == 3
