import itertools

import decodekit as dk
import pytest
import torch
from decodekit.testing import strategy_checks
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mamba, tiny_mistral
from decodekit_strategies.beam import Beam
from hypothesis import given, settings
from hypothesis import strategies as st

EOS = 0


def endings(table, start, most):
    """Every sequence that ends by EOS or by length, with its log-probability, by enumeration."""
    logprobs = table.log_softmax(-1)
    others = range(1, len(table))
    for length in range(1, most + 1):
        for head in itertools.product(others, repeat=length - 1):
            for last in range(len(table)) if length == most else (EOS,):
                tokens = (*head, last)
                score = sum(float(logprobs[a, b]) for a, b in itertools.pairwise((start, *tokens)))
                yield tokens, score


@settings(max_examples=20)
@given(
    vocab_size=st.integers(2, 3),
    most=st.integers(1, 3),
    penalty=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 1000),
    returns=st.integers(1, 3),
)
def test_at_exhaustive_width_the_result_is_the_best_of_all(vocab_size, most, penalty, seed, returns):
    model = MarkovModel.random(vocab_size, seed=seed, eos_token_id=EOS, pad_token_id=EOS)
    everything = sorted(endings(model.table, 1, most), key=lambda item: -item[1] / len(item[0]) ** penalty)
    returns = min(returns, len(everything))
    output = dk.generate(
        model,
        input_ids=torch.tensor([[1]]),
        strategy="beam",
        num_beams=2 * vocab_size**most,
        num_return_sequences=returns,
        length_penalty=penalty,
        early_stopping="never",
        max_new_tokens=most,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for row, (tokens, score) in enumerate(everything[:returns]):
        assert output.sequences_scores[row].item() == pytest.approx(score / len(tokens) ** penalty, abs=1e-5)
        assert output.token_logprobs[row].sum().item() == pytest.approx(
            float(output.sequences_scores[row])
            * len(_trimmed(output.sequences[row, 1:].tolist())) ** penalty,
            abs=1e-5,
        )


def _trimmed(tokens):
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


MODELS = {
    "llama": tiny_llama(16),
    "mistral": tiny_mistral(16),
    "hash": CacheHashModel(16, eos_token_id=2, pad_token_id=0),
}
ARGUMENTS = {"num_beams": 3, "max_new_tokens": 8, "return_dict_in_generate": True, "output_scores": True}


@pytest.mark.parametrize(
    "arguments", [{}, {"do_sample": True, "seed": 5, "temperature": 2.0}, {"use_cache": False}], ids=str
)
@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_is_searched_as_if_it_were_alone(name, arguments):
    model = MODELS[name]
    lengths = (5, 1, 3)
    mask = torch.tensor([[0] * (5 - length) + [1] * length for length in lengths])
    ids = (torch.arange(15).view(3, 5) % 12 + 3) * mask
    together = dk.generate(
        model, input_ids=ids, attention_mask=mask, num_return_sequences=2, **ARGUMENTS, **arguments
    )
    for row, length in enumerate(lengths):
        alone = dk.generate(
            model,
            input_ids=ids[row : row + 1, 5 - length :],
            num_return_sequences=2,
            **ARGUMENTS,
            **arguments,
        )
        count = alone.sequences.shape[1] - length
        assert torch.equal(
            together.sequences[2 * row : 2 * row + 2, 5 : 5 + count], alone.sequences[:, length:]
        )
        torch.testing.assert_close(together.sequences_scores[2 * row : 2 * row + 2], alone.sequences_scores)


def test_a_recurrent_model_can_be_searched():
    model = tiny_mamba(16)
    ids = torch.tensor([[5, 6, 7]])
    cached = dk.generate(model, input_ids=ids, **ARGUMENTS)
    recomputed = dk.generate(model, input_ids=ids, use_cache=False, **ARGUMENTS)
    assert torch.equal(cached.sequences, recomputed.sequences)


def test_scores_are_those_of_the_returned_tokens():
    output = dk.generate(
        MODELS["llama"], input_ids=torch.tensor([[5, 6]]), num_return_sequences=3, **ARGUMENTS
    )
    lengths = (output.beam_indices >= 0).sum(1)
    torch.testing.assert_close(output.sequences_scores, (output.token_logprobs.sum(1) / lengths).float())
    assert output.sequences_scores.tolist() == sorted(output.sequences_scores.tolist(), reverse=True)
    assert len({tuple(row) for row in output.sequences.tolist()}) == 3


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(run, id=f"{kind} {name}")
        for kind, beam in {"search": Beam(num_beams=3), "sampling": Beam(num_beams=3, do_sample=True)}.items()
        for name, run in strategy_checks(beam)
    ],
)
def test_the_kit(check):
    check()


def test_ties_go_to_the_earlier_beam_and_the_lower_id():
    model = MarkovModel(torch.zeros(5, 5), eos_token_id=4, pad_token_id=4)
    output = dk.generate(model, input_ids=torch.tensor([[1]]), **(ARGUMENTS | {"max_new_tokens": 2}))
    assert output.sequences[0].tolist() == [1, 0, 0]


def test_an_instance_brings_its_parameters():
    ids = torch.tensor([[5, 6]])
    two = dk.generate(
        MODELS["llama"], input_ids=ids, strategy=Beam(num_beams=2), num_return_sequences=2, max_new_tokens=4
    )
    assert len(two) == 2
    with pytest.raises(dk.ParameterError, match=r"num_beams=3 and strategy=.*contradict"):
        dk.generate(MODELS["llama"], input_ids=ids, strategy=Beam(num_beams=2), num_beams=3, max_new_tokens=4)


def test_one_beam_is_greedy():
    ids = torch.tensor([[5, 6], [7, 8]])
    greedy = dk.generate(MODELS["llama"], input_ids=ids, max_new_tokens=8)
    assert torch.equal(
        dk.generate(MODELS["llama"], input_ids=ids, strategy="beam", num_beams=1, max_new_tokens=8), greedy
    )


def test_temperature_zero_takes_the_best_candidates():
    ids = torch.tensor([[5, 6]])
    cold = dk.generate(MODELS["llama"], input_ids=ids, do_sample=True, temperature=0, top_k=0, **ARGUMENTS)
    assert torch.equal(cold.sequences, dk.generate(MODELS["llama"], input_ids=ids, **ARGUMENTS).sequences)


def test_a_criterion_ends_beams_and_is_asked_once_a_candidate():
    seen = []

    def third_token(input_ids, scores):
        seen.append(len(input_ids))
        return input_ids.shape[1] >= 2 + 3

    output = dk.generate(
        MODELS["llama"], input_ids=torch.tensor([[5, 6]]), stopping_criteria=[third_token], **ARGUMENTS
    )
    assert output.sequences.shape[1] == 5
    assert output.finish_reasons[0] in ("criterion", "eos")
    assert len(seen) <= 3
    assert set(seen) == {6}


def test_too_few_sequences_are_filled_with_blanks():
    """transformers returns tokens of probability 0 there."""
    table = torch.full((4, 4), -torch.inf)
    table[:, 0] = 0.0
    model = MarkovModel(table, eos_token_id=EOS, pad_token_id=3)
    output = dk.generate(
        model, input_ids=torch.tensor([[1], [2]]), num_return_sequences=2, **(ARGUMENTS | {"num_beams": 2})
    )
    assert output.sequences.tolist() == [[1, 0], [1, 3], [2, 0], [2, 3]]
    assert output.finish_reasons == ("eos", "exhausted") * 2
    assert output.sequences_scores.tolist() == [0, -torch.inf] * 2


class Watching:
    """A tokenizer that only decodes."""

    def decode(self, ids, **_):
        return "".join(chr(97 + token) for token in ids)


@pytest.mark.parametrize("returns", [1, 2])
def test_a_stream_says_what_all_beams_agree_on_and_never_takes_it_back(returns):
    table = torch.randn(16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table[:, 3:9] += 8 * torch.eye(16, dtype=torch.float64)[:, 3:9]
    model = MarkovModel(table, eos_token_id=2, pad_token_id=0)
    events = list(
        dk.stream(
            model,
            Watching(),
            torch.tensor([5, 6]),
            num_beams=3,
            num_return_sequences=returns,
            max_new_tokens=9,
        )
    )
    result = events[-1].output
    for row in range(returns):
        tokens = [event.token for event in events if isinstance(event, dk.TokenEvent) and event.row == row]
        assert tokens == result.sequences[row, 2 : 2 + len(tokens)].tolist()
    order = [type(event) for event in events]
    assert order.index(dk.TokenEvent) < order.index(dk.FinishedEvent)


@pytest.mark.parametrize(
    "values",
    [
        {"num_beams": 0},
        {"early_stopping": "sometimes"},
        {"length_penalty": "long"},
        {"length_penalty": 1e6},
        {"length_penalty": float("nan")},
    ],
    ids=str,
)
def test_wrong_parameters_are_named(values):
    (name,) = values
    with pytest.raises(dk.ParameterError, match=name):
        dk.generate(
            MODELS["llama"], input_ids=torch.tensor([[5]]), strategy="beam", max_new_tokens=2, **values
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_a_model_in_half_precision_are_those_of_transformers(dtype):
    model = tiny_llama(32).to(dtype)
    arguments = {"input_ids": torch.tensor([[5, 6, 7], [9, 10, 11]]), "num_beams": 3, "max_new_tokens": 5}
    arguments |= {"return_dict_in_generate": True, "output_scores": True, "eos_token_id": None}
    ours, theirs = dk.generate(model, **arguments), model.generate(**arguments)
    assert torch.equal(torch.stack(ours.scores), torch.stack(theirs.scores))
    assert torch.equal(ours.sequences_scores, theirs.sequences_scores)
