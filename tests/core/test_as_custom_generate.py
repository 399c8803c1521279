"""Our strategies inside `model.generate`: the same tokens as from `decodekit.generate`."""

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from transformers import BartConfig, BartForConditionalGeneration

IDS = torch.tensor([[0, 3, 4], [5, 6, 7]])
MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])
ARGUMENTS = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "max_new_tokens": 6,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CALLS = [
    ("greedy", {}),
    ("greedy", {"repetition_penalty": 1.4, "min_new_tokens": 3}),
    ("sample", {"do_sample": True, "temperature": 0.7, "top_k": 5}),
    ("sample", {"do_sample": True, "num_return_sequences": 3, "top_p": 0.9}),
    ("beam", {"num_beams": 3, "num_return_sequences": 2, "early_stopping": True}),
]


@pytest.fixture(scope="module")
def model():
    return tiny_llama(dtype=torch.float32)


@pytest.mark.parametrize(("strategy", "more"), CALLS)
def test_it_decodes_as_our_generate_and_as_theirs(model, strategy, more):
    custom = dk.as_custom_generate(strategy)
    outputs = []
    for generate in (
        lambda **given: model.generate(**given, custom_generate=custom),
        lambda **given: dk.generate(model, strategy=strategy, **given),
        model.generate,
    ):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            outputs.append(generate(**ARGUMENTS, **more))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_a_seed_is_a_keyword_of_their_generate(model):
    custom = dk.as_custom_generate("sample")
    ours = dk.generate(model, strategy="sample", seed=[7, 8], **ARGUMENTS)
    assert torch.equal(model.generate(**ARGUMENTS, do_sample=True, seed=[7, 8], custom_generate=custom), ours)


@attrs.frozen
class Rank(dk.Strategy):
    NAME = "rank"
    rank: int = dk.param(0, range="[0, 9]", help="Which.")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.scores.argsort(descending=True, stable=True)[:, self.rank], p)


@pytest.mark.parametrize(
    ("spec", "more"), [(Rank, {"rank": 2}), ((Rank, {"rank": 2}), {}), (Rank(2), {})], ids=str
)
def test_parameters_come_with_the_strategy_or_as_keywords(model, spec, more):
    out = model.generate(**ARGUMENTS, **more, custom_generate=dk.as_custom_generate(spec))
    assert torch.equal(out, dk.generate(model, **ARGUMENTS, strategy=Rank(2)))


def test_an_explicit_chain_takes_the_place_of_theirs(model):
    custom = dk.as_custom_generate(
        "greedy", processors=[("suppress_tokens", {"suppress_tokens": [9, 10, 11]})]
    )
    out = model.generate(**ARGUMENTS, custom_generate=custom)
    assert torch.equal(out, dk.generate(model, **ARGUMENTS, suppress_tokens=[9, 10, 11]))


@pytest.mark.parametrize(("name", "value"), [("suppress_tokens", [9]), ("min_new_tokens", 2)])
def test_a_keyword_that_an_explicit_chain_would_leave_without_effect_is_refused(model, name, value):
    custom = dk.as_custom_generate("greedy", processors=["top_k"])
    with pytest.raises(dk.ParameterError, match=f"so {name}=.* would have no effect"):
        model.generate(**ARGUMENTS, **{name: value}, custom_generate=custom)


def test_the_output_has_transformers_fields(model):
    out = model.generate(
        **ARGUMENTS,
        return_dict_in_generate=True,
        output_scores=True,
        custom_generate=dk.as_custom_generate("greedy"),
    )
    assert isinstance(out, dk.GenerateOutput)
    theirs = model.generate(**ARGUMENTS, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(out.sequences, theirs.sequences)
    assert len(out.scores) == len(theirs.scores)


def test_their_criteria_and_processors_count(model):
    plain = model.generate(**ARGUMENTS)

    def forbid(input_ids, scores):
        return scores.index_fill(1, plain[1, 3:4], -torch.inf)

    def two_tokens(input_ids, scores):
        return torch.full((len(input_ids),), input_ids.shape[1] >= 5)

    given = {**ARGUMENTS, "logits_processor": [forbid], "stopping_criteria": [two_tokens]}
    out = model.generate(**given, custom_generate=dk.as_custom_generate("greedy"))
    assert out.shape[1] == 5
    assert torch.equal(out, model.generate(**given))


def test_a_streamer_gets_every_token(model):
    got = []

    class Listener:
        def put(self, tokens):
            got.append(tokens)

        def end(self):
            got.append(None)

    out = model.generate(**ARGUMENTS, custom_generate=dk.as_custom_generate("greedy", streamer=Listener()))
    assert torch.equal(torch.cat([got[0], *(item[:, None] for item in got[1:-1])], dim=1), out)
    assert got[-1] is None


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("beem", dk.UnknownNameError),
        (3, dk.ParameterError),
        (int, dk.ParameterError),
        (("beam", 3), dk.ParameterError),
    ],
)
def test_what_is_no_strategy_is_refused_at_once(spec, error):
    with pytest.raises(error):
        dk.as_custom_generate(spec)


def test_a_filled_cache_is_refused(model):
    with torch.no_grad():
        cache = model(IDS[1:, :2]).past_key_values
    with pytest.raises(dk.UnsupportedArgumentError, match="past_key_values"):
        model.generate(
            IDS[1:], past_key_values=cache, max_new_tokens=2, custom_generate=dk.as_custom_generate("greedy")
        )


def test_an_encoder_decoder_model_decodes_as_well():
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 40}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BartForConditionalGeneration(BartConfig(**sizes, **heads, max_position_embeddings=64)).eval()
    arguments = {**ARGUMENTS, "num_beams": 3, "forced_eos_token_id": None}
    ours = model.generate(**arguments, custom_generate=dk.as_custom_generate("beam"))
    assert torch.equal(ours, dk.generate(model, **arguments, strategy="beam"))
    assert torch.equal(ours, model.generate(**arguments))


def test_prompts_may_be_embeddings(model):
    embeds = model.get_input_embeddings()(IDS[1:]).detach()
    arguments = {"inputs_embeds": embeds, "max_new_tokens": 6, "eos_token_id": 2, "pad_token_id": 0}
    ours = model.generate(**arguments, custom_generate=dk.as_custom_generate("greedy"))
    assert torch.equal(ours, model.generate(**arguments))
