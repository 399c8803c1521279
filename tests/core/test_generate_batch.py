"""Each prompt of a list gets what a call with it alone gets."""

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, StoppingCriteria

from tests.parity.architectures import model_of

LLAMA = tiny_llama(258, eos_token_id=257, pad_token_id=257, bos_token_id=256)
TEXTS = ["Once upon", "a", "The capital of France", "Hi!", "zzzzzz", "def f(x):", "-"]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return AutoTokenizer.from_pretrained(tiny_folder)


def alone(model, ids, **arguments):
    """What `generate` gives for one prompt: tokens, reasons, log-probabilities of each row."""
    out = dk.generate(model, torch.tensor([ids]), return_dict_in_generate=True, **arguments)
    counts = [row.new_tokens for row in out.stats.rows]
    new = out.sequences[:, len(ids) :].tolist()
    return [
        (tokens[:count], reason, logprobs[:count])
        for tokens, count, reason, logprobs in zip(
            new, counts, out.finish_reasons, out.token_logprobs.tolist(), strict=True
        )
    ]


def same(result, expected):
    found = [(one.tokens, one.finish_reason) for one in result.completions]
    assert found == [(tokens, reason) for tokens, reason, _ in expected]
    for one, (_, _, logprobs) in zip(result.completions, expected, strict=True):
        assert one.token_logprobs == pytest.approx(logprobs, abs=1e-9)


class Words:
    """A tokenizer of numbers."""

    chat_template = None

    def __call__(self, text):
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids, skip_special_tokens=True, clean_up_tokenization_spaces=False):
        return " ".join(map(str, ids))


SMALL = {"llama": tiny_llama(16, seed=2), "hash": CacheHashModel(16, eos_token_id=2, pad_token_id=0)}
PROMPT = st.fixed_dictionaries(
    {"prompt": st.lists(st.integers(3, 15), min_size=1, max_size=6), "seed": st.integers(0, 5)},
    optional={
        "max_new_tokens": st.integers(0, 9),
        "temperature": st.sampled_from([0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([None, 2, 5]),
        "repetition_penalty": st.sampled_from([1.0, 1.4]),
        "eos_token_id": st.sampled_from([2, 7, [5, 9]]),
        "stop_strings": st.sampled_from(["7", "4 5", ["8", "9 9"]]),
        "num_return_sequences": st.integers(1, 2),
        "min_new_tokens": st.integers(0, 3),
    },
)
GREEDY = {"temperature", "top_k"}
STRATEGIES = {
    "sample": {},
    "greedy": {},
    "assisted": {"prompt_lookup_num_tokens": 3, "do_sample": True},
    "beam": {"num_beams": 3},
}


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("model", SMALL)
@settings(max_examples=6)
@given(prompts=st.lists(PROMPT, min_size=1, max_size=7), size=st.integers(1, 4), random=st.randoms())
def test_a_prompt_gets_what_it_gets_alone(model, strategy, prompts, size, random):
    """Whatever it is beside: strategy, batch size, order, and what each prompt asks for of its own."""
    drop = set() if strategy in ("sample", "assisted") else GREEDY
    drop |= {"num_return_sequences"} if strategy != "sample" else set()
    prompts = [{name: value for name, value in one.items() if name not in drop} for one in prompts]
    random.shuffle(prompts)
    common = {"strategy": strategy, "max_new_tokens": 6, **STRATEGIES[strategy]}
    results = dk.generate_batch(
        SMALL[model], Words(), prompts, batch_size=size, token_logprobs=True, **common
    )
    assert [result.index for result in results] == list(range(len(prompts)))
    for one, result in zip(prompts, results, strict=True):
        values = dict(one)
        ids = values.pop("prompt")
        if "top_k" in values:
            values["top_k"] = [values["top_k"]]  # None is none, as in a list of values
        same(result, alone(SMALL[model], ids, tokenizer=Words(), **{**common, **values}))
        assert result.prompt_tokens == len(ids)


def test_values_and_seeds_may_be_lists(tokenizer):
    lists = {"temperature": [0.5, 1.0, 0], "max_new_tokens": [3, 5, 7], "seed": [7, 8, 9]}
    results = dk.generate_batch(LLAMA, tokenizer, TEXTS[:3], batch_size=2, do_sample=True, **lists)
    for place, (text, result) in enumerate(zip(TEXTS, results, strict=False)):
        own = {name: values[place] for name, values in lists.items()} | {"do_sample": True}
        ((tokens, reason, _),) = alone(LLAMA, tokenizer(text)["input_ids"], **own)
        assert (result.tokens, result.finish_reason) == (tokens, reason)
        assert result.text == tokenizer.decode(tokens, skip_special_tokens=True)
        assert result.token_logprobs is None
    assert [result.seed for result in results] == [7, 8, None]  # at temperature 0 nothing is drawn


def test_a_chain_may_be_of_each_prompt(tokenizer):
    chains = [["top_k"], None, [("min_p", {"min_p": 0.3}), "temperature"]]
    arguments = {"strategy": "sample", "max_new_tokens": 6}
    results = dk.generate_batch(LLAMA, tokenizer, TEXTS[:3], processors=chains, seed=4, **arguments)
    for text, chain, result in zip(TEXTS, chains, results, strict=False):
        ((tokens, _, _),) = alone(
            LLAMA, tokenizer(text)["input_ids"], processors=chain or [], seed=4, **arguments
        )
        assert result.tokens == tokens


def test_without_seeds_torchs_generator_gives_one_to_each_prompt(tokenizer):
    found = []
    for size, order in ((1, 1), (3, 1), (7, 1)):
        torch.manual_seed(5)
        results = dk.generate_batch(
            LLAMA, tokenizer, TEXTS[::order], batch_size=size, do_sample=True, max_new_tokens=5
        )
        found.append([(result.seed, result.tokens) for result in results])
    assert found[0] == found[1] == found[2]
    assert len({seed for seed, _ in found[0]}) == len(TEXTS)
    again = dk.generate_batch(
        LLAMA, tokenizer, TEXTS[:1], seed=found[0][0][0], do_sample=True, max_new_tokens=5
    )
    assert again[0].tokens == found[0][0][1]


def test_what_draws_nothing_leaves_the_global_generator_alone(tokenizer):
    before = torch.get_rng_state()
    results = dk.generate_batch(LLAMA, tokenizer, TEXTS, max_new_tokens=2)
    assert torch.equal(before, torch.get_rng_state())
    assert {result.seed for result in results} == {None}


def test_results_come_as_prompts_end(tokenizer):
    prompts = [{"prompt": "a", "max_new_tokens": count, "id": f"n{count}"} for count in (9, 2, 5, 1)]
    arguments = {"eos_token_id": None}
    found = [result.id for result in dk.stream_batch(LLAMA, tokenizer, prompts, batch_size=4, **arguments)]
    assert found == ["n1", "n2", "n5", "n9"]
    assert [r.id for r in dk.generate_batch(LLAMA, tokenizer, prompts, **arguments)] == [
        "n9",
        "n2",
        "n5",
        "n1",
    ]


def test_prompts_are_texts_chats_and_ids(tokenizer):
    chat = [{"role": "user", "content": "Hi"}]
    prompts = ["Hi", chat, [39, 72], torch.tensor([39, 72]), {"prompt": "Hi"}, {"messages": chat}]
    one, chatted, *rest = dk.generate_batch(LLAMA, tokenizer, prompts, max_new_tokens=3)
    assert [result.tokens for result in rest] == [one.tokens] * 3 + [chatted.tokens]
    assert chatted.prompt_tokens == len("<user>Hi<assistant>")


def test_an_empty_list_is_an_empty_list(tokenizer):
    assert dk.generate_batch(LLAMA, tokenizer, []) == []


def fed(model, run):
    """How many tokens and how many passes went through a model."""
    shapes = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        run()
    finally:
        handle.remove()
    return shapes


def test_a_prompt_is_fed_once_for_all_its_sequences_and_ended_rows_leave(tokenizer):
    prompts = [{"prompt": [5] * length, "max_new_tokens": new} for length, new in ((9, 3), (9, 5), (9, 2))]
    arguments = {"num_return_sequences": 4, "do_sample": True, "eos_token_id": None, "seed": 1}
    shapes = fed(LLAMA, lambda: dk.generate_batch(LLAMA, tokenizer, prompts, batch_size=2, **arguments))
    assert [shape for shape in shapes if shape[1] > 1] == [(2, 9), (1, 9)]
    steps = [shape[0] for shape in shapes if shape[1] == 1]
    assert sum(steps) == 4 * (2 + 4 + 1)  # a row's first token comes from its prompt
    assert max(steps) == 8


class EndsAt(StoppingCriteria):
    """Sees the rows of one prompt, without padding, as a call with it alone has them."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores, **kwargs):
        self.seen.append(input_ids.tolist())
        return torch.tensor([len(row) >= 2 * row[0] for row in input_ids.tolist()])


def test_criteria_see_a_prompt_as_if_it_were_alone():
    prompts = [[3], [6, 5], [8, 8, 8], [2], [4, 4]]
    arguments = {"max_new_tokens": 20, "eos_token_id": None}
    batched, single = EndsAt(), EndsAt()
    results = dk.generate_batch(
        SMALL["llama"], Words(), prompts, batch_size=2, stopping_criteria=[batched], **arguments
    )
    for prompt, result in zip(prompts, results, strict=True):
        ((tokens, reason, _),) = alone(SMALL["llama"], prompt, stopping_criteria=[single], **arguments)
        assert (result.tokens, result.finish_reason) == (tokens, reason)
        assert len(prompt) + len(tokens) == 2 * prompt[0]
    assert sorted(batched.seen) == sorted(single.seen)


def test_transformers_processors_get_batches_as_transformers_makes_them():
    """They may look at other rows, so prompts come batch by batch."""
    shapes = []

    def show(input_ids, scores):
        shapes.append(len(input_ids))
        return scores

    dk.generate_batch(
        SMALL["llama"], Words(), [[3], [4, 5], [6]], batch_size=2, max_new_tokens=2, logits_processor=[show]
    )
    assert set(shapes) <= {2, 1}
    assert shapes.count(2) >= 2


@pytest.mark.parametrize("kind", ["guided", "t5", "bart", "static"])
def test_other_models_and_settings(kind, tokenizer):
    """Encoders too, whose positions may count from the first column."""
    model = model_of(kind) if kind in ("t5", "bart") else SMALL["llama"]
    prompts = [[3, 4], [5], [6, 7, 8], [9]]
    arguments = {
        "guided": {"guidance_scale": 1.7, "do_sample": True, "seed": 3},
        "t5": {"do_sample": True, "seed": 3},
        "bart": {"do_sample": True, "seed": 3},
        "static": {"cache_implementation": "static"},
    }[kind] | {"max_new_tokens": 5}
    results = dk.generate_batch(model, Words(), prompts, batch_size=3, token_logprobs=True, **arguments)
    for prompt, result in zip(prompts, results, strict=True):
        out = dk.generate(model, torch.tensor([prompt]), return_dict_in_generate=True, **arguments)
        assert result.tokens == out.sequences[0, -len(result.tokens) :].tolist()
        assert result.finish_reason == out.finish_reasons[0]


# What goes wrong


def test_a_prompt_that_is_wrong_is_named_before_the_model_runs(tokenizer):
    def refused():
        with pytest.raises(dk.ParameterError):
            dk.stream_batch(LLAMA, tokenizer, ["a", ""], max_new_tokens=1)

    assert not fed(LLAMA, refused)
    wrong = {
        r"prompts\[1\]: the prompt is empty": ["a", ""],
        r"prompts\[0\]: 7 is no prompt": [7],
        r"prompts\[1\]: 'temprature' .* Did you mean 'temperature'": ["a", {"prompt": "b", "temprature": 1}],
        r"prompts\[1\]: temperature=1\.0 would have no effect": [
            "a",
            {"prompt": "b", "temperature": 1.0},
        ],
        r"prompts\[0\]: the prompt has 512 tokens, and LlamaForCausalLM has 512 positions": ["a" * 512],
        r"prompts\[0\]: seed='x'": [{"prompt": "a", "seed": "x"}],
    }
    for message, prompts in wrong.items():
        with pytest.raises(dk.ParameterError, match=message):
            dk.generate_batch(LLAMA, tokenizer, prompts, max_new_tokens=1)


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": -1}, {"temperature": 0.5, "processors": [["top_k"], None]}],
    ids=["value", "value beside chains"],
)
def test_an_argument_that_is_wrong_for_all_is_nobodys_fault(tokenizer, arguments):
    with pytest.raises(dk.ParameterError, match=r"^temperature=-1|^processors= is the whole chain"):
        dk.generate_batch(LLAMA, tokenizer, ["", "b"], do_sample=True, errors="keep", **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"streamer": object()}, dk.UnsupportedArgumentError, "streamer=.* read decodekit.stream_batch"),
        ({"prefix_allowed_tokens_fn": print}, dk.UnsupportedArgumentError, "prefix_allowed_tokens_fn"),
        (
            {"prefix_allowed_tokens_fn": torch.tensor([1, 2])},
            dk.UnsupportedArgumentError,
            r"prefix_allowed_tokens_fn=tensor\(\[1, 2\]\) is told a prompt by its row",
        ),
        ({"output_scores": True}, dk.UnsupportedArgumentError, "token_logprobs=True"),
        ({"pixel_values": 1}, dk.UnsupportedArgumentError, "pixel_values is an argument of neither"),
        ({"quant": "int8"}, dk.UnsupportedArgumentError, "quant is for loading"),
        ({"max_new_token": 1}, dk.UnsupportedArgumentError, "Did you mean 'max_new_tokens'"),
        ({"batch_size": 0}, dk.ParameterError, r"batch_size must be int in \[1, inf\)"),
        ({"errors": "skip"}, dk.ParameterError, "errors must be 'raise' or 'keep'"),
        ({"seed": [1, 2]}, dk.ParameterError, "seed has 2 values for 1 prompts"),
        ({"max_new_tokens": [1, 2]}, dk.ParameterError, "max_new_tokens has 2 values for 1 prompt:"),
        ({"strategy": "gredy"}, dk.UnknownNameError, "greedy"),
        (
            {"custom_generate": lambda model, input_ids: None},
            dk.UnsupportedArgumentError,
            "a loop of its own",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_has_no_place_in_a_list_is_refused_by_name(tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        dk.stream_batch(LLAMA, tokenizer, ["a"], **arguments)


def test_wrong_models_tokenizers_and_lists_are_refused(tokenizer):
    with pytest.raises(dk.ParameterError, match="prompts is a str"):
        dk.generate_batch(LLAMA, tokenizer, "a")
    with pytest.raises(dk.ParameterError, match="the model's tokenizer is the second argument"):
        dk.generate_batch(LLAMA, None, ["a"])
    with pytest.raises(dk.UnsupportedArgumentError, match="takes no list of prompts"):
        dk.generate_batch(model_of("blip2"), tokenizer, ["a"])


@attrs.frozen
class Trips(dk.Processor):
    """Fails at rows that begin with one token, once they have two new ones."""

    NAME = "trips"
    token: int = 9

    def __call__(self, logits, history):
        if any(
            history.row(row)[0] == self.token for row in range(len(history)) if history.new_lengths[row] > 1
        ):
            message = "tripped"
            raise RuntimeError(message)
        return logits


def test_a_prompt_that_fails_while_it_runs_takes_nobody_with_it():
    prompts = [[token, 4] for token in (3, 9, 5, 6, 9, 7, 8, 10)]
    arguments = {"max_new_tokens": 5, "strategy": "sample", "seed": 2, "eos_token_id": None}
    results = dk.generate_batch(
        SMALL["llama"], Words(), prompts, batch_size=3, processors=[Trips()], errors="keep", **arguments
    )
    for prompt, result in zip(prompts, results, strict=True):
        if prompt[0] == 9:
            assert str(result.error) == "tripped"
            assert (result.completions, result.prompt_tokens) == ((), 2)
            with pytest.raises(RuntimeError, match="tripped"):
                _ = result.text
        else:
            ((tokens, _, _),) = alone(SMALL["llama"], prompt, processors=[], **arguments)
            assert result.tokens == tokens
    with pytest.raises(RuntimeError, match="tripped"):
        dk.generate_batch(SMALL["llama"], Words(), prompts, processors=[Trips()], **arguments)


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_a_row_of_nan_is_one_error(strategy):
    table = torch.zeros(6, 6)
    table[torch.arange(5), torch.arange(5) + 1] = 3.0
    table[5] = torch.nan
    model = MarkovModel(table, pad_token_id=0)
    results = dk.generate_batch(
        model, Words(), [[0], [4], [1]], batch_size=3, max_new_tokens=3, strategy=strategy, errors="keep"
    )
    assert [type(result.error) for result in results] == [type(None), dk.NonFiniteLogitsError, type(None)]
    assert results[2].tokens == [2, 3, 4]
