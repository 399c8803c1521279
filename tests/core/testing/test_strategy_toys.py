import pytest
import torch
from decodekit import History
from decodekit.testing import processor_checks
from decodekit.testing.strategy_toys import (
    Bytes,
    Damp,
    Heat,
    Interruption,
    InterruptionError,
    NotAgain,
    Tire,
    Top,
)


@pytest.mark.parametrize("processor", [Heat, Top, Damp(), NotAgain(), Tire()], ids=str)
def test_the_kit_s_own_processors_conform(processor):
    for _, run in processor_checks(processor, profile="fast"):
        run()


def test_each_looks_at_its_part_of_the_row():
    history, x = History.of([[0, 2], [1]], [[2, 2], []]), torch.tensor([[3.0, 2.0, 1.0]] * 2)
    assert Damp()(x, history).tolist() == [[3, 2, -2], [3, 2, 1]]
    assert NotAgain()(x, history).tolist() == [[3, 2, -torch.inf], [3, -torch.inf, 1]]
    assert NotAgain()(torch.tensor([[-torch.inf, 0.0]]), History.of([[1]])).tolist() == [[-torch.inf, 0]]
    assert Top(2)(x, history).tolist() == [[3, 2, -torch.inf]] * 2


def test_an_interruption_comes_after_so_many_tokens():
    x = torch.zeros(2, 3)
    assert Interruption(2)(x, History.of([[0], [1]], [[1], []])) is x
    with pytest.raises(InterruptionError, match="planted after 2 tokens"):
        Interruption(2)(x, History.of([[0], [1]], [[1, 1], []]))


def test_halves_of_a_character_are_no_text_alone():
    tokenizer = Bytes()
    assert tokenizer.decode([0, 1, 2, 9]) == "ababa"
    assert [tokenizer.decode([3]), tokenizer.decode([3, 4]), tokenizer.decode([7, 8])] == ["�", "é", "€"]
