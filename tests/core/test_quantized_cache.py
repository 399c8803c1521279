import importlib.util

import decodekit as dk
import pytest
import torch
from decodekit.quantized_cache import BACKENDS, new_quantized_cache
from decodekit.session import Session
from decodekit.testing.models import tiny_llama, tiny_mistral
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import Cache, QuantizedLayer

VOCAB = 24
SPECIAL = {"eos_token_id": None, "pad_token_id": 0, "bos_token_id": 1}
MODEL = tiny_llama(VOCAB, seed=5, **SPECIAL)
FP8 = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
PROMPTS = torch.tensor([[0, 0, 4, 5, 6], [7, 8, 9, 10, 11]])
RAGGED = {"input_ids": PROMPTS, "attention_mask": (PROMPTS != 0).long()}
COMMON = {**RAGGED, "max_new_tokens": 12}


class GroupsLayer(QuantizedLayer):
    """What quanto and hqq do, with plain arithmetic: whole numbers of 1/32 after each flush."""

    def _quantize(self, tensor, axis):
        return (tensor * 32).round()

    def _dequantize(self, q_tensor):
        return q_tensor / 32


class GroupsCache(Cache):
    def __init__(self, residual_length=3):
        layers = [GroupsLayer(residual_length=residual_length) for _ in range(2)]
        super().__init__(layers=layers)


def fp8_session():
    return Session(MODEL, cache=new_quantized_cache(MODEL, {"backend": "fp8"}))


def random_tokens(rows, count, seed):
    return torch.randint(1, VOCAB, (rows, count), generator=torch.Generator().manual_seed(seed))


@given(
    rows=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    back=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_fp8_after_forks_and_rollbacks_is_as_if_they_had_never_been(rows, back, seed):
    prompt, draft, last = (random_tokens(3, 4, seed), random_tokens(len(rows), 3, seed + 1), 2)
    session = fp8_session()
    session.feed(prompt)
    session.select(rows)
    session.feed(draft)
    session.rollback(back[: len(rows)])
    seen = session.feed(random_tokens(len(rows), last, seed + 2)).logits

    for place, row in enumerate(rows):
        plain = fp8_session()
        plain.feed(prompt)  # all rows: the scale of a tensor comes from its first pass
        plain.select([row])
        kept = draft[place : place + 1, : 3 - back[place]]
        if kept.shape[1]:
            plain.feed(kept)
        wanted = plain.feed(random_tokens(len(rows), last, seed + 2)[place : place + 1]).logits
        assert torch.allclose(seen[place], wanted[0], atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
        {"do_sample": True, "top_k": 5},
    ],
    ids=str,
)
def test_fp8_gives_the_tokens_of_transformers(arguments):
    torch.manual_seed(3)
    wanted = MODEL.generate(**COMMON, **arguments, **FP8)
    torch.manual_seed(3)

    assert torch.equal(dk.generate(MODEL, **COMMON, **arguments, **FP8), wanted)


def test_fp8_changes_what_is_decoded():
    assert not torch.equal(dk.generate(MODEL, **COMMON, **FP8), dk.generate(MODEL, **COMMON))


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "seed": 3}], ids=str)
def test_speculation_on_fp8_gives_the_tokens_of_plain_decoding_on_it(arguments):
    plain = dk.generate(MODEL, **COMMON, **arguments, **FP8)

    drafted = dk.generate(MODEL, **COMMON, **arguments, **FP8, prompt_lookup_num_tokens=3)

    assert torch.equal(plain, drafted)


def test_fp8_holds_a_byte_a_number():
    session = fp8_session()
    session.feed(random_tokens(2, 6, 0))
    session.feed(random_tokens(2, 1, 1))

    values, _ = session.cache.layers[0]._quantized_keys
    assert values.element_size() == 1
    assert values.shape[2] == 7


@given(
    selections=st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=2), min_size=1, max_size=4),
    residual=st.integers(1, 4),
)
@settings(max_examples=15)
def test_groups_follow_forks_also_when_their_reordering_is_due_later(selections, residual):
    session = Session(MODEL, cache=GroupsCache(residual))
    plain = [Session(MODEL, cache=GroupsCache(residual)) for _ in range(2)]
    prompt, owners = random_tokens(2, 4, 1), [0, 1]
    session.feed(prompt)
    fed = [[], []]
    for number, rows in enumerate(selections):
        session.select(rows)
        owners, fed = [owners[row] for row in rows], [list(fed[row]) for row in rows]
        step = random_tokens(2, 1, 10 + number)
        seen = session.feed(step).logits
        for place in range(2):
            fed[place].append(step[place : place + 1])

    for place, owner in enumerate(owners):
        plain[place].feed(prompt[owner : owner + 1])
        for token in fed[place]:
            wanted = plain[place].feed(token).logits
        assert torch.allclose(seen[place], wanted[0], atol=1e-9)


def test_speculation_on_groups_is_refused_by_name():
    groups = {"past_key_values": GroupsCache(), "max_new_tokens": 6}

    with pytest.raises(dk.CapabilityError, match=r"'assisted'.*rollback.*rounds tokens in groups.*'fp8'"):
        dk.generate(MODEL, PROMPTS[1:], **groups, prompt_lookup_num_tokens=3)


def test_searches_on_groups_work():
    found = dk.generate(MODEL, PROMPTS[1:], past_key_values=GroupsCache(), num_beams=3, max_new_tokens=6)

    assert found.shape == (1, 11)


def test_the_result_hands_no_quantized_cache_back():
    out = dk.generate(MODEL, **COMMON, **FP8, return_dict_in_generate=True)

    assert out.past_key_values is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_config": {"backend": "fp8"}}, "no effect with cache_implementation='dynamic'"),
        (FP8 | {"cache_config": {"backend": "fp9"}}, "'fp9'.*Did you mean 'fp8'"),
        (FP8 | {"cache_config": {"backend": "fp8", "n_bits": 4}}, "Did you mean 'nbits'"),
        (FP8 | {"cache_config": {"backend": "fp8", "nbits": 4}}, "does not support .*nbits"),
        (FP8 | {"use_cache": False}, "use_cache=False contradict"),
    ],
    ids=["no effect", "backend", "option", "option of others", "no cache"],
)
def test_what_can_not_be_is_refused_with_the_reason(arguments, message):
    with pytest.raises(dk.ParameterError, match=message):
        dk.generate(MODEL, **RAGGED, **arguments, max_new_tokens=2)


@pytest.mark.parametrize("backend", [name for name, libraries in BACKENDS.items() if libraries])
def test_a_missing_library_comes_with_its_install_line_and_what_needs_none(backend, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(
        dk.MissingLibraryError, match=f"backend='{backend}' .*pip install '.*'backend': 'fp8'"
    ):
        new_quantized_cache(MODEL, {"backend": backend})


def test_a_model_with_windows_is_refused():
    with pytest.raises(dk.CapabilityError, match="full attention"):
        dk.generate(tiny_mistral(VOCAB), PROMPTS[1:], **FP8, max_new_tokens=2)


@pytest.mark.parametrize("backend", ["hqq", "quanto"])
def test_the_backends_of_others_decode_where_they_are_installed(backend):
    pytest.importorskip(next(iter(BACKENDS[backend])), reason=f"needs the library of backend={backend!r}")
    config = {"backend": backend, "nbits": 4, "q_group_size": 32}

    found = dk.generate(MODEL.float(), **COMMON, cache_implementation="quantized", cache_config=config)

    assert found.shape == (2, 17)
