import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.adaptive_p import AdaptiveP


def law(logits):
    weights = [math.exp(x - max(logits)) for x in logits]
    return [weight / math.fsum(weights) for weight in weights]


def oracle(row: OracleRow, target, decay):
    """The past as the kit makes it: the row itself, with the chosen token made the largest."""
    average = target
    for token in row.tokens[row.prompt_length :]:
        past = [max(row.logits) + 1 if i == token else x for i, x in enumerate(row.logits)]
        # The core hands log-probabilities over in float32.
        remembered = torch.tensor(math.log(law(past)[token]), dtype=torch.float32).exp()
        average = decay * average + (1 - decay) * float(remembered)
    moved = min(1, max(0, 2 * target - average))
    distances = [abs(p - moved) / 0.3 for p in law(row.logits)]
    new = [5 - 10 * d**2 / (1 + d) for d in distances]
    return [y if x > -math.inf else x for x, y in zip(row.logits, new, strict=True)]


CHECKS = dict(processor_checks(AdaptiveP, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_the_token_nearest_to_the_target_gains():
    x = torch.tensor([[0.6, 0.3, 0.1, 0.0]], dtype=torch.float64).log()
    out = AdaptiveP(0.3).process(x, History.of([[0]]), [0.3])
    assert out[0].tolist() == pytest.approx([0.0, 5.0, 5 - 10 * (4 / 9) / (5 / 3), -math.inf])


def test_what_was_too_probable_moves_the_target_down():
    processor, x = AdaptiveP(0.5, 0.5), torch.tensor([[0.5, 0.9, 0.2]], dtype=torch.float64)
    logits = (x / x.sum()).log()
    memory = processor.memory(logits, processor.process(logits, History.of([[0]]), [0.5]))
    assert processor.advance(0.5, 1, memory[0]) == pytest.approx(0.5 * 0.5 + 0.5 * 0.9 / 1.6)
    assert processor.process(logits, History.of([[0]]), [0.9])[0].argmax() == 2
