"""What `generate` takes, returns and refuses."""

from typing import ClassVar

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mamba
from hypothesis import given, settings
from hypothesis import strategies as st

VOCAB = 32
MODEL = tiny_llama(VOCAB)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def call(**arguments):
    arguments = {"input_ids": IDS, "max_new_tokens": 6, **arguments}
    return dk.generate(MODEL, **arguments)


@attrs.frozen
class Favour(dk.Processor):
    """Prefers one token."""

    NAME: ClassVar[str] = "favour"
    favour: int = dk.param(3, range="[0, inf)", help="The token.")

    def __call__(self, logits, history):
        bias = torch.zeros_like(logits)
        bias[:, self.favour] = 1e6
        return logits + bias


# An explicit chain


@pytest.mark.parametrize("spec", [Favour, Favour(3), (Favour, {"favour": 3})], ids=str)
def test_a_chain_takes_classes_instances_and_pairs(spec):
    assert call(processors=[spec])[:, 4:].unique().tolist() == [3]


def test_the_order_of_an_explicit_chain_is_the_users():
    chains = []
    for order in (["top_k", "temperature"], ["temperature", "top_k"]):
        specs = [(name, {name: 2}) for name in order]
        output = call(strategy="sample", processors=specs, seed=1, return_dict_in_generate=True)
        chains += output.stats.chains
    assert chains == ["top_k=2 > temperature=2", "temperature=2 > top_k=2"]


def test_an_explicit_chain_may_have_values_for_each_prompt():
    tokens = call(processors=[(Favour, {"favour": [3, 4]})])
    assert tokens[0, 4:].unique().tolist() == [3]
    assert tokens[1, 4:].unique().tolist() == [4]


@pytest.mark.parametrize("name", ["temperature", "top_k", "repetition_penalty"])
def test_an_explicit_chain_refuses_what_would_have_no_effect(name):
    with pytest.raises(dk.ParameterError, match=f"processors= is the whole chain, so {name}="):
        call(processors=["min_p"], **{name: 2})
    with pytest.raises(dk.ParameterError, match="so logits_processor="):
        call(processors=["min_p"], logits_processor=[lambda ids, scores: scores])


# Values and seeds per row


VALUES = {
    "temperature": st.sampled_from([0, 0.3, 1.0, 2.5]),
    "top_k": st.sampled_from([0, 1, 3, 50]),
    "top_p": st.sampled_from([0.1, 0.7, 1.0]),
    "min_p": st.sampled_from([0.0, 0.2, 1.0]),
    "repetition_penalty": st.sampled_from([1.0, 1.5]),
    "min_new_tokens": st.sampled_from([0, 4]),
}


@settings(max_examples=25)
@given(data=st.data(), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_a_row_with_values_of_its_own_is_what_it_is_alone(data, lengths):
    names = data.draw(st.sets(st.sampled_from(sorted(VALUES)), min_size=1))
    values = {name: [data.draw(VALUES[name]) for _ in lengths] for name in names}
    seeds = [data.draw(st.integers(0, 1000)) for _ in lengths]
    width = max(lengths)
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    ids = (torch.arange(len(lengths) * width).view(len(lengths), width) % 28 + 3) * mask
    arguments = {"do_sample": True, "max_new_tokens": 6, "num_return_sequences": 2}
    together = dk.generate(MODEL, input_ids=ids, attention_mask=mask, seed=seeds, **arguments, **values)
    for place, length in enumerate(lengths):
        own = {name: value[place] for name, value in values.items()}
        alone = dk.generate(
            MODEL, input_ids=ids[place : place + 1, width - length :], seed=seeds[place], **arguments, **own
        )
        count = alone.shape[1] - length
        assert torch.equal(together[2 * place : 2 * place + 2, width : width + count], alone[:, length:])
        assert (together[2 * place : 2 * place + 2, width + count :] == 0).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"do_sample": True, "num_return_sequences": 2},
        {"num_beams": 3},
        {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
        {"do_sample": True, "prompt_lookup_num_tokens": 3},
        {"do_sample": True, "guidance_scale": 1.5},
    ],
    ids=["sample", "beam", "beam sample", "assisted", "guidance"],
)
def test_rows_of_different_chains_in_turns_are_what_they_are_alone(arguments):
    texts = ["repetition_penalty=1.3 > top_k=5", "temperature=0.7 > min_p=0.1"] * 2
    chains = [dk.Chain.parse(text) for text in texts]
    ids = torch.arange(4 * 5).view(4, 5) % 28 + 3
    arguments = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True, **arguments}
    together = dk.generate(MODEL, input_ids=ids, seed=[4, 5, 6, 7], processors=chains, **arguments)
    count = len(together.sequences) // 4
    for place, chain in enumerate(chains):
        alone = dk.generate(
            MODEL, input_ids=ids[place : place + 1], seed=4 + place, processors=chain, **arguments
        )
        rows = slice(place * count, (place + 1) * count)
        width = alone.sequences.shape[1]
        assert torch.equal(together.sequences[rows, :width], alone.sequences)
        assert (together.sequences[rows, width:] == 0).all()
        if "num_beams" not in arguments:
            torch.testing.assert_close(together.logits[0][rows], alone.logits[0])


def test_values_may_be_tensors():
    listed = call(do_sample=True, seed=3, temperature=[0.5, 2.0])
    assert torch.equal(call(do_sample=True, seed=3, temperature=torch.tensor([0.5, 2.0])), listed)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("typical_p", [0.1, 1.0]),
        ("epsilon_cutoff", [0.2, 0.0]),
        ("eta_cutoff", [0.9, 0.0]),
        ("top_h", [0.1, 1.0]),
        ("no_repeat_ngram_size", [1, 0]),
    ],
)
def test_each_prompt_has_its_own_value(name, values):
    arguments = {"do_sample": True, "seed": 3, "top_k": 0, "eos_token_id": None, "max_new_tokens": 12}
    mixed = call(**arguments, **{name: values})
    first, second = (call(**arguments, **{name: value}) for value in values)
    assert not torch.equal(first, second)
    assert torch.equal(mixed, torch.stack([first[0], second[1]]))


def test_temperature_zero_is_greedy():
    greedy = call(return_dict_in_generate=True)
    cold = call(do_sample=True, temperature=0, return_dict_in_generate=True)
    assert torch.equal(cold.sequences, greedy.sequences)
    assert cold.stats.strategy == "greedy"
    rows = call(do_sample=True, temperature=[0, 5.0], seed=1)
    count = min(rows.shape[1], greedy.sequences.shape[1])
    assert torch.equal(rows[0, :count], greedy.sequences[0, :count])


@pytest.mark.parametrize(
    "arguments", [{"temperature": [0.5]}, {"top_k": [1, 2, 3]}, {"seed": [1, 2, 3]}], ids=str
)
def test_a_wrong_number_of_values_is_named(arguments):
    (name,) = arguments
    with pytest.raises(dk.ParameterError, match=f"{name} has . values? for 2 prompts"):
        call(do_sample=True, **arguments)


def test_a_seed_leaves_the_global_generator_alone_and_rows_of_a_prompt_differ():
    state = torch.random.get_rng_state()
    one = call(do_sample=True, seed=5, num_return_sequences=4, top_k=0, temperature=2.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, call(do_sample=True, seed=5, num_return_sequences=4, top_k=0, temperature=2.0))
    assert len({tuple(row) for row in one[:4].tolist()}) == 4
    fewer = call(do_sample=True, seed=5, num_return_sequences=2, top_k=0, temperature=2.0)
    count = min(one.shape[1], fewer.shape[1])
    assert torch.equal(fewer[:2, :count], one[:2, :count])


# Results


def test_a_prompt_is_fed_once_however_many_rows_it_gets():
    output = call(
        do_sample=True,
        num_return_sequences=5,
        max_new_tokens=3,
        eos_token_id=None,
        return_dict_in_generate=True,
    )
    stats = output.stats
    assert (stats.prompt_tokens, stats.new_tokens, stats.forward_passes) == (8, 30, 3)
    assert stats.tokens_fed == 8 + 2 * 10  # the last tokens are not fed
    assert stats.prefill_seconds > 0
    assert stats.decode_seconds > 0


def test_rows_that_end_leave_the_batch():
    table = torch.zeros(4, 4, dtype=torch.float64)
    table[1, 2] = table[3, 3] = 50.0
    model = MarkovModel(table, eos_token_id=2, pad_token_id=0)
    output = dk.generate(
        model, input_ids=torch.tensor([[1], [3]]), max_new_tokens=5, return_dict_in_generate=True
    )
    assert output.sequences.tolist() == [[1, 2, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3]]
    assert output.finish_reasons == ("eos", "length")
    assert output.stats.tokens_fed == 2 + 4


def test_log_probabilities_are_those_of_the_processed_distribution():
    output = call(
        do_sample=True,
        temperature=0.7,
        top_k=5,
        seed=1,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for step, scores in enumerate(output.scores):
        expected = scores.log_softmax(-1).gather(1, output.sequences[:, 4 + step : 5 + step])[:, 0]
        torch.testing.assert_close(output.token_logprobs[:, step], expected)
    transitions = MODEL.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    torch.testing.assert_close(output.token_logprobs, transitions)


def test_scores_of_an_ended_row_say_pad():
    table = torch.zeros(4, 4, dtype=torch.float64)
    table[1, 2] = table[3, 3] = 50.0
    model = MarkovModel(table, eos_token_id=2, pad_token_id=0)
    output = dk.generate(
        model,
        input_ids=torch.tensor([[1], [3]]),
        max_new_tokens=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert output.scores[1][0].tolist() == [0, -torch.inf, -torch.inf, -torch.inf]
    assert output.token_logprobs[0, 1] == 0


def test_nothing_asked_is_nothing_computed():
    calls = []
    handle = MODEL.register_forward_hook(lambda *_: calls.append(1))
    try:
        output = call(max_new_tokens=0, num_return_sequences=2, do_sample=True, return_dict_in_generate=True)
    finally:
        handle.remove()
    assert not calls
    assert torch.equal(output.sequences, IDS.repeat_interleave(2, 0))
    assert output.finish_reasons == ("length",) * 4


def test_an_empty_prompt_starts_from_bos():
    from_bos = dk.generate(MODEL, input_ids=torch.tensor([[1]]), max_new_tokens=4)
    empty = dk.generate(MODEL, input_ids=torch.zeros(1, 0, dtype=torch.long), max_new_tokens=4)
    assert torch.equal(from_bos, empty)
    mixed = dk.generate(
        MODEL,
        input_ids=torch.tensor([[0, 0], [5, 6]]),
        attention_mask=torch.tensor([[0, 0], [1, 1]]),
        max_new_tokens=4,
    )
    assert mixed[0, 1:].tolist()[: from_bos.shape[1]] == from_bos[0].tolist()


def test_an_empty_prompt_without_bos_is_refused():
    model = CacheHashModel(8)
    with pytest.raises(dk.ParameterError, match="no bos_token_id"):
        dk.generate(model, input_ids=torch.zeros(1, 0, dtype=torch.long), max_new_tokens=2)


def test_a_vocabulary_of_two():
    model = MarkovModel.random(2, eos_token_id=1, pad_token_id=1)
    output = dk.generate(model, input_ids=torch.tensor([[0]]), do_sample=True, max_new_tokens=9, seed=1)
    assert set(output.unique().tolist()) <= {0, 1}


# The strategy


def test_a_strategy_may_be_a_name_a_pair_a_class_or_an_instance():
    greedy = call()
    cls = dk.strategies()["greedy"].cls
    for spec in ("greedy", ("greedy", {}), cls, cls()):
        assert torch.equal(call(strategy=spec), greedy)


@attrs.frozen
class Nth(dk.Strategy):
    """Commits the n-th best token; its parameter is a keyword of generate."""

    NAME: ClassVar[str] = "nth"
    NEEDS: ClassVar[frozenset] = frozenset({dk.Capability.ROLLBACK})
    n: int = dk.param(1, range="[1, inf)", help="Which one.")
    num_beams: int = dk.param(1, range="[1, inf)", help="A field of the configuration as well.")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.scores.topk(self.n).indices[:, -1], p)


def test_a_strategys_parameters_are_keywords():
    assert torch.equal(call(strategy=Nth, n=1), call())
    assert not torch.equal(call(strategy=Nth, n=2, num_beams=1), call())
    with pytest.raises(dk.ParameterError, match=r"n=0 is not allowed: n must be int in \[1, inf\)"):
        call(strategy=Nth, n=0)


def test_what_the_models_cache_cannot_do_is_refused_before_any_forward():
    model = tiny_mamba(VOCAB)
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(
            dk.CapabilityError, match=r"'nth' needs rollback.*MambaForCausalLM.*use_cache=False"
        ):
            dk.generate(model, input_ids=IDS, max_new_tokens=3, strategy=Nth)
        assert not calls
        dk.generate(model, input_ids=IDS, max_new_tokens=3, strategy=Nth, use_cache=False)
    finally:
        handle.remove()


@pytest.mark.parametrize("dim", [2, 1], ids=["prompt", "token"])
def test_a_streamer_is_ended_after_an_error_too(dim):
    class Streamer:
        ends = 0

        def put(self, value):
            if value.dim() == dim:
                raise RuntimeError("planned")

        def end(self):
            self.ends += 1

    streamer = Streamer()
    with pytest.raises(RuntimeError, match="planned"):
        call(streamer=streamer)
    assert streamer.ends == 1


def test_a_deadline_ends_the_call():
    output = call(max_time=0.0, max_new_tokens=500, eos_token_id=None, return_dict_in_generate=True)
    assert output.finish_reasons == ("time", "time")
    assert output.sequences.shape[1] == 5


def test_a_models_name_is_no_model():
    with pytest.raises(dk.ParameterError, match=r"model='gpt2' is a text: load it first.*decodekit.load"):
        dk.generate("gpt2", IDS)


def test_a_parameter_of_another_strategy_is_named_with_it():
    with pytest.raises(dk.ParameterError, match="drafter is a parameter of strategy='assisted'"):
        dk.generate(tiny_llama(32), torch.tensor([[1, 2]]), drafter="suffix_automaton")
