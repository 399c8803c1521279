import pytest
from decodekit import CallContext, Chain, ParameterError
from decodekit.chain_config import chain_of
from transformers import GenerationConfig

CONTEXT = CallContext(vocab_size=100, eos_token_ids=(2,))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("top_k=50 > top_p=1 > min_p=0", "top_k=50"),
        ("top_k=5 > top_k=5 > top_k=4", "top_k=5 > top_k=4"),
        ("top_k=5 > top_k=0 > top_k=5", "top_k=5"),
        ("top_p=0.9 > top_p=0.9", "top_p=0.9 > top_p=0.9"),
        ("top_k=5 > temperature=0.5 > top_k=5", "top_k=5 > temperature=0.5 > top_k=5"),
        ("top_k=100 > logit_bias", "none"),
    ],
)
def test_what_changes_nothing_is_dropped_and_the_order_stays(given, kept):
    assert str(Chain.parse(given).bind(CONTEXT)) == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top_k=50 > top_n_sigma", "top_k=50 and top_n_sigma=1 contradict each other in this order: top_n_s"),
        ("xtc > temperature=2", "xtc must be last"),
        ("adaptive_p > min_p", "adaptive_p must be last"),
        (
            "forced_eos_token_id=[2, 3] > suppress_tokens=[2, 3, 4]",
            "forbids all that forced_eos_token_id for",
        ),
        ("forced_bos_token_id=5 > suppress_tokens=[5]", "suppress_tokens forbids all that forced_bos_token"),
        ("mirostat_v1 > mirostat_v2", "both steer the surprise of the text"),
        ("mirostat_v2 > temperature=0.5 > adaptive_p", "leave one of them out"),
    ],
)
def test_a_contradiction_is_refused_by_name(text, message):
    for refuse in (Chain.parse(text).explain, lambda: Chain.parse(text).bind(CONTEXT)):
        with pytest.raises(ParameterError, match=message):
            refuse()


@pytest.mark.parametrize(
    "text",
    [
        "temperature=2 > top_n_sigma > top_k=50",
        "suppress_tokens=[3] > top_n_sigma",
        "top_k=50 > xtc > renormalize_logits",
        "xtc(probability=0) > top_k",
        "forced_eos_token_id=[2, 3] > suppress_tokens=[2]",
    ],
)
def test_what_does_not_contradict_is_let_through(text):
    Chain.parse(text).bind(CONTEXT)


def test_an_explanation_says_order_work_and_cost():
    told = Chain.parse(
        "repetition_penalty=1.2 > temperature=0.8 > top_k=50 > top_p=1 > typical_p=0.9 > logit_bias={3: 1}"
    ).explain()
    assert [step.phase for step in told.steps] == [
        "penalty",
        "temperature",
        "truncation",
        "truncation",
        "truncation",
        "bias",
    ]
    assert [step.looks_at.partition(",")[0] for step in told.steps] == [
        "every logit",
        "the 51 largest logits",
        "the 51 largest logits",
        "",
        "what is left",
        "what is left",
    ]
    text = str(told)
    assert "2.  temperature=0.8  [temperature]\n    Divide the logits by T" in text
    assert "-   top_p=1  [truncation]" in text
    assert "dropped: changes nothing at these values" in text
    assert text.endswith("A draw looks at what is left.")
    assert "µs" not in text


def test_an_explanation_measures_on_demand():
    told = Chain.parse("temperature=0.8 > top_k=50 > mirostat_v2").explain(vocab_size=300, rows=2)
    assert all(step.microseconds and step.microseconds > 0 for step in told.steps)
    assert "µs up to here" in str(told)


def test_a_chain_that_cuts_nothing_draws_from_everything():
    assert Chain.parse("temperature=0.8").explain().draws_from == "every token"
    assert str(Chain().explain()) == "A draw looks at every token."


def test_a_configuration_gives_its_chain_in_transformers_order():
    config = GenerationConfig(do_sample=True, min_p=0.1, temperature=0.7, repetition_penalty=1.1, top_k=0)
    assert str(chain_of(config)) == "repetition_penalty=1.1 > temperature=0.7 > min_p=0.1"
