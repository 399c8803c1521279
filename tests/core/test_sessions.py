"""Sessions are opened as the configuration asks."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def test_where_transformers_compiles_the_model_so_does_a_session(monkeypatch):
    """On a GPU with a static cache, that is; here the condition is said to hold."""
    model = tiny_llama(32)
    plain = dk.generate(model, IDS, max_new_tokens=5)
    widths = []

    def compiled(**inputs):
        widths.append(inputs["input_ids"].shape[1])
        return model(**inputs)

    monkeypatch.setattr(model, "_valid_auto_compile_criteria", lambda *_: True)
    monkeypatch.setattr(model, "get_compiled_call", lambda _: compiled)
    ours = dk.generate(model, IDS, max_new_tokens=5, cache_implementation="static")
    assert torch.equal(ours, plain)
    assert widths == [1] * 4  # every pass but the prompt's


@pytest.mark.parametrize("kind", ["offloaded", "offloaded_static"])
def test_offloading_needs_an_accelerator(kind):
    with pytest.raises(dk.CapabilityError, match=f"cache_implementation='{kind}'.*on cpu"):
        dk.generate(tiny_llama(32), IDS, max_new_tokens=3, cache_implementation=kind)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["offloaded", "offloaded_static"])
def test_offloaded_caches_change_no_token(kind):
    model = tiny_llama(32).cuda()
    ours = dk.generate(model, IDS.cuda(), max_new_tokens=6, cache_implementation=kind)
    assert torch.equal(ours, dk.generate(model, IDS.cuda(), max_new_tokens=6))


def test_a_model_with_a_cache_of_its_own_kind_is_refused():
    from transformers import RwkvConfig, RwkvForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2}
    model = RwkvForCausalLM(RwkvConfig(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)).eval()
    with pytest.raises(dk.UnsupportedArgumentError, match=r"Rwkv.*cache of its own kind.*use_cache=False"):
        dk.generate(model, IDS, max_new_tokens=3)
    ours = dk.generate(model, IDS, max_new_tokens=3, use_cache=False)
    assert torch.equal(ours, model.generate(IDS, max_new_tokens=3, use_cache=False))


NEGATIVES = {
    "a mask alone": ({"negative_prompt_attention_mask": [[1, 1]]}, "add negative_prompt_ids"),
    "no batch": ({"negative_prompt_ids": torch.tensor([9])}, r"negative_prompt_ids has shape \[1\]"),
    "unknown ids": (
        {"negative_prompt_ids": [[99]]},
        r"negative_prompt_ids holds ids from 99 to 99.*\[0, 32\)",
    ),
    "three for two": ({"negative_prompt_ids": [[5]] * 3}, r"\[2, length\] or \[1, length\]"),
    "nothing": (
        {"negative_prompt_ids": [[5]], "negative_prompt_attention_mask": [[0]]},
        "at least one token a row",
    ),
    "a mask of others": (
        {"negative_prompt_ids": [[5]], "negative_prompt_attention_mask": [[1, 1]]},
        r"negative_prompt_attention_mask has shape \[1, 2\] and negative_prompt_ids \[1, 1\]",
    ),
}


@pytest.mark.parametrize("name", NEGATIVES)
def test_negative_prompts_that_do_not_fit_are_named(name):
    arguments, words = NEGATIVES[name]
    with pytest.raises(dk.ParameterError, match=words):
        dk.generate(tiny_llama(32), IDS, max_new_tokens=3, guidance_scale=1.5, **arguments)
