"""transformers' streamers as they are: the same calls, the same text, and an end whatever happens."""

import asyncio
import threading

import decodekit as dk
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AsyncTextIteratorStreamer,
    AutoModelForCausalLM,
    AutoTokenizer,
    TextIteratorStreamer,
    TextStreamer,
)

from tests.parity.architectures import inputs_of, model_of
from tests.parity.differential import MODELS, prompts_of
from tests.parity.refusals import theirs

WAIT = 60.0  # seconds, after which a reader that was forgotten gives up
SETTINGS = {
    "greedy": {},
    "sample": {"do_sample": True, "top_k": 20},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
}


class Recorder:
    """Keeps what it is given."""

    def __init__(self):
        self.seen, self.ends = [], 0

    def put(self, value):
        assert not self.ends
        assert value.device.type == "cpu"
        self.seen.append(value)

    def end(self):
        self.ends += 1


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return AutoModelForCausalLM.from_pretrained(tiny_folder)


def recorded(generate, model, **arguments):
    streamer = Recorder()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        result = generate(model, **arguments, streamer=streamer)
    assert streamer.ends == 1
    return streamer.seen, result


CALLS = {
    "greedy": (MODELS["llama"], {**prompts_of((4, 2))}),
    "sample": (MODELS["llama"], {**prompts_of((4, 2)), **SETTINGS["sample"], "num_return_sequences": 2}),
    "embeddings": (
        MODELS["llama"],
        {"inputs_embeds": torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))},
    ),
    "states": (MODELS["mamba"], {**prompts_of((4, 4))}),
    "encoder": (model_of("bart"), inputs_of("bart")),
    "pictures": (model_of("llava"), inputs_of("llava")),
    "a beginning": (model_of("t5"), {**inputs_of("t5"), "decoder_input_ids": torch.tensor([[4, 7], [4, 9]])}),
    "wrapped": (model_of("whisper"), inputs_of("whisper")),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_calls(name):
    model, arguments = CALLS[name]
    (one, _), (other, _) = (
        recorded(generate, model, **arguments, max_new_tokens=6) for generate in (theirs, dk.generate)
    )
    assert [value.tolist() for value in one] == [value.tolist() for value in other]
    assert [value.dtype for value in one] == [value.dtype for value in other]


@pytest.mark.parametrize("drafts", [{"prompt_lookup_num_tokens": 3}, {"assistant_model": MODELS["llama"]}])
def test_drafts_are_streamed_token_by_token(drafts):
    """transformers puts each accepted block [1, n]; its blocks and ours need not be the same."""
    (one, _), (other, _) = (
        recorded(generate, MODELS["llama"], **prompts_of((6,)), **drafts, max_new_tokens=9)
        for generate in (theirs, dk.generate)
    )
    assert torch.equal(one[0], other[0])
    assert [token for value in one[1:] for token in value.flatten().tolist()] == torch.cat(other[1:]).tolist()
    assert {tuple(value.shape) for value in other[1:]} == {(1,)}


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    setting=st.sampled_from(
        [
            {},
            {"do_sample": True, "num_return_sequences": 2},
            {"prompt_lookup_num_tokens": 3},
            {"num_beams": 3},
            {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
        ]
    ),
    eos=st.sampled_from([[2], [2, 5, 7, 8, 9, 11, 14, 20, 21, 22, 25, 26, 29]]),
    seed=st.integers(0, 100),
)
def test_what_was_put_side_by_side_is_the_result(lengths, setting, eos, seed):
    """For batches, several sequences, drafts of rows that are uneven, and searches."""
    seen, result = recorded(
        dk.generate,
        MODELS["llama"],
        **prompts_of(lengths, seed),
        **setting,
        eos_token_id=eos,
        max_new_tokens=7,
        seed=seed,
    )
    put = torch.cat([seen[0], torch.stack(seen[1:], dim=1)], dim=1)
    assert torch.equal(put, result)


def test_a_search_streams_what_is_certain_before_its_end():
    model, when = MODELS["llama"], []

    class Watch(Recorder):
        def put(self, value):
            when.append(len(forwards))

    forwards = []
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    try:
        dk.generate(
            model, **prompts_of((4,)), num_beams=2, max_new_tokens=24, eos_token_id=None, streamer=Watch()
        )
    finally:
        handle.remove()
    assert when[1] < len(forwards)


# Text


def text_of(kind, generate, model, tokenizer, capsys, **arguments):
    """What a reader of the streamer gets."""
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    if kind is AsyncTextIteratorStreamer:
        return asyncio.run(_read(generate, model, tokenizer, inputs, arguments))
    if kind is TextStreamer:
        capsys.readouterr()
        generate(model, **inputs, **arguments, streamer=TextStreamer(tokenizer, skip_prompt=True))
        return capsys.readouterr().out
    streamer = TextIteratorStreamer(tokenizer, timeout=WAIT)
    return "".join(_started(generate, model, {**inputs, **arguments, "streamer": streamer}, streamer))


def _started(generate, model, arguments, streamer):
    thread = threading.Thread(target=lambda: generate(model, **arguments))
    thread.start()
    yield from streamer
    thread.join()


async def _read(generate, model, tokenizer, inputs, arguments):
    streamer = AsyncTextIteratorStreamer(tokenizer, skip_prompt=True, timeout=WAIT)
    arguments = {**inputs, **arguments, "streamer": streamer}
    thread = threading.Thread(target=lambda: generate(model, **arguments))
    thread.start()
    pieces = [piece async for piece in streamer]
    thread.join()
    return "".join(pieces)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", [TextStreamer, TextIteratorStreamer, AsyncTextIteratorStreamer])
def test_text_streamers_say_the_same(model, tokenizer, capsys, kind, setting):
    said = []
    for generate in (theirs, dk.generate):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            said.append(
                text_of(kind, generate, model, tokenizer, capsys, **SETTINGS[setting], max_new_tokens=12)
            )
    if setting == "prompt lookup":  # its pieces are other ones, with other bytes that are no text yet
        said = [text.replace("\ufffd", "") for text in said]
    assert said[0] == said[1]
    assert said[0]


def test_beams_have_a_text_too(model, tokenizer, capsys):
    said = text_of(TextIteratorStreamer, dk.generate, model, tokenizer, capsys, num_beams=3, max_new_tokens=8)
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    found = dk.generate(model, **inputs, num_beams=3, max_new_tokens=8)
    assert said == tokenizer.decode(found[0])


# The end


class BrokenError(Exception):
    pass


def fails(*_):
    raise BrokenError


FAILURES = {
    "typo": {"max_new_token": 3},
    "no strategy": {"strategy": "gredy"},
    "no processor": {"processors": ["topp"]},
    "no cache": {"past_key_values": ()},
    "no mask": {"attention_mask": torch.ones(1, 9)},
    "no range": {"do_sample": True, "temperature": -1.0},
    "no list": {"logits_processor": fails},
    "no tokenizer": {"stop_strings": ["x"]},
    "processor": {"logits_processor": [fails]},
    "criterion": {"stopping_criteria": [fails]},
    "prefix": {"prefix_allowed_tokens_fn": fails},
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_end_comes_once_after_an_error(name):
    streamer = Recorder()
    with pytest.raises((BrokenError, dk.DecodekitError)):
        dk.generate(
            MODELS["llama"], **{**prompts_of((4,)), "max_new_tokens": 3, **FAILURES[name]}, streamer=streamer
        )
    assert streamer.ends == 1


@pytest.mark.parametrize("name", ["typo", "no range", "processor", "criterion"])
def test_the_end_comes_once_in_a_block_too(name):
    streamer = Recorder()
    with pytest.raises((BrokenError, dk.DecodekitError)), dk.drop_in():
        MODELS["llama"].generate(
            **{**prompts_of((4,)), "max_new_tokens": 3, **FAILURES[name]}, streamer=streamer
        )
    assert streamer.ends == 1


def test_a_reader_of_a_call_that_fails_gets_what_came_and_an_end(model, tokenizer):
    def after_three(input_ids, scores):
        if input_ids.shape[1] == width + 3:
            raise BrokenError
        return False

    inputs = tokenizer("Once", return_tensors="pt")
    width = inputs["input_ids"].shape[1]
    streamer, errors = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=WAIT), []

    def run():
        try:
            dk.generate(model, **inputs, max_new_tokens=9, streamer=streamer, stopping_criteria=[after_three])
        except BrokenError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    said = "".join(streamer)
    thread.join()
    assert errors
    expected = dk.generate(model, **inputs, max_new_tokens=2)
    assert said == tokenizer.decode(expected[0, width:])


def test_several_rows_are_too_many_for_a_text_streamer_and_it_ends(model, tokenizer):
    inputs = tokenizer(["Once", "Twice"], return_tensors="pt", padding=True, padding_side="left")
    streamer = TextIteratorStreamer(tokenizer, timeout=WAIT)
    with pytest.raises(ValueError, match="TextStreamer only supports batch size 1"):
        dk.generate(model, **inputs, max_new_tokens=3, streamer=streamer)
    assert list(streamer) == [""]


# Models that wrap generate


class Twice(type(MODELS["llama"])):
    """Decodes in two calls, as models for long recordings do, and may fail before, between and after."""

    fails_at = None

    def generate(self, *args, **kwargs):
        for call in range(3):
            if call == self.fails_at:
                raise BrokenError
            if call < 2:
                result = super().generate(*args, **kwargs)
        return result


@pytest.mark.parametrize("fails_at", [None, 0, 1, 2])
def test_a_model_that_decodes_twice_ends_its_streamer_once(fails_at):
    model, streamer = Twice(MODELS["llama"].config), Recorder()
    model.fails_at = fails_at
    arguments = {**prompts_of((4,)), "max_new_tokens": 3, "min_new_tokens": 3, "streamer": streamer}
    if fails_at is None:
        dk.generate(model, **arguments)
    else:
        with pytest.raises(BrokenError):
            dk.generate(model, **arguments)
    assert streamer.ends == 1
    assert len(streamer.seen) == 4 * (2 if fails_at is None else fails_at)


def test_a_streamer_of_a_model_that_wraps_generate_keeps_its_own_attributes(tokenizer, capsys):
    class Named(Recorder):
        def name(self):
            return "mine"

    found = []

    class Asks(type(MODELS["llama"])):
        def generate(self, *args, streamer, **kwargs):
            found.append(streamer.name())
            return super().generate(*args, streamer=streamer, **kwargs)

    dk.generate(Asks(MODELS["llama"].config), **prompts_of((4,)), max_new_tokens=2, streamer=Named())
    assert found == ["mine"]


def test_no_streamer_is_refused_by_a_model_that_wraps_generate_too():
    with pytest.raises(dk.ParameterError, match="streamer=7 has no put and no end"):
        dk.generate(Twice(MODELS["llama"].config), **prompts_of((4,)), streamer=7)
