"""Multi-token heads draft what transformers' heads draft, for rows of any batch, and change no token."""

import gc
import weakref
from typing import ClassVar

import decodekit as dk
import pytest
import torch
from decodekit.testing import check_drafter
from decodekit.testing.models import tiny_llama
from decodekit_strategies.drafters.multi_token import MultiToken
from safetensors.torch import load_file, save_file
from transformers import DynamicCache, Glm4MoeConfig, Glm4MoeForCausalLM
from transformers.generation import candidate_generator
from transformers.modeling_layers import MtpModel

VOCAB = 9
CONFIG = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
INPUTS = {
    "input_ids": torch.tensor([[0, 0, 5, 3, 7], [2, 4, 6, 8, 3], [0, 8, 8, 2, 6]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5, [0, 1, 1, 1, 1]]),
}


class WithTwoHeads(Glm4MoeForCausalLM):
    """A GLM whose files name the layers of its heads 2 and 3; those of the real ones are 46 and 92."""

    _keys_to_ignore_on_load_unexpected: ClassVar = [r"model\.layers\.[23]\."]


def randomize(module, generator):
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with heads, as the models that have them are published."""
    folder = tmp_path_factory.mktemp("with_heads")
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        model = WithTwoHeads(Glm4MoeConfig(**CONFIG)).double()
        heads = MtpModel(model, 2)
    randomize(model, generator)
    randomize(heads.layers.double(), generator)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in heads.layers.state_dict().items():
        number, rest = name.split(".", 1)
        rest = "shared_head.norm.weight" if rest == "post_norm.weight" else rest.removeprefix("mtp_block.")
        tensors[f"model.layers.{2 + int(number)}.{rest}"] = tensor.clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def loaded(folder):
    """The model as it is loaded, without its heads."""
    model = WithTwoHeads.from_pretrained(folder, dtype=torch.float64).eval()
    model.set_experts_implementation("eager")  # the others take no float64
    return model


@pytest.fixture(scope="module")
def model(folder):
    return loaded(folder)


@pytest.fixture
def fresh(folder):
    """One that a test may change."""
    return loaded(folder)


def run(model, **arguments):
    arguments = {**INPUTS, "max_new_tokens": 12, "return_dict_in_generate": True, **arguments}
    return dk.generate(model, **arguments)


@pytest.mark.parametrize("rows", [[1], [0, 1, 2]])
@pytest.mark.parametrize("arguments", [{}, {"adaptive": False}, {"num_assistant_tokens": 1}], ids=str)
def test_greedy_tokens_are_those_without_drafts(model, rows, arguments):
    inputs = {name: value[rows] for name, value in INPUTS.items()}
    output = run(model, **inputs, use_mtp=True, strategy="assisted", **arguments)
    assert output.stats.details["drafter"] == "multi_token"
    assert output.stats.drafted > 0
    assert torch.equal(output.sequences, run(model, **inputs).sequences)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_return_sequences": 3},
        {"temperature": 1.3, "top_p": 0.9, "repetition_penalty": 1.2},
        {"cache_implementation": "static"},
        {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}},
        {"use_cache": False},
        {"processors": ["mirostat_v2"]},
    ],
    ids=str,
)
def test_tokens_of_a_seed_are_those_without_drafts(model, arguments):
    arguments = {"do_sample": True, "seed": 4, "max_new_tokens": 30, **arguments}
    output = run(model, strategy="assisted", use_mtp=True, adaptive=False, **arguments)
    assert 0 < output.stats.accepted < output.stats.drafted
    assert torch.equal(output.sequences, run(model, **arguments).sequences)


def test_the_use_of_heads_is_chosen_as_in_transformers(fresh):
    fresh.generation_config.use_mtp = True
    stats = run(fresh).stats
    assert (stats.strategy, stats.details["drafter"]) == ("assisted", "multi_token")


def test_drafts_are_those_of_transformers(model, monkeypatch):
    theirs, ours = [], []
    original = candidate_generator.MTPCandidateGenerator.get_candidates

    def watched(self, input_ids, **keywords):
        candidates, logits = original(self, input_ids, **keywords)
        theirs.append((input_ids[0].tolist(), candidates[0, input_ids.shape[1] :].tolist()))
        return candidates, logits

    monkeypatch.setattr(candidate_generator.MTPCandidateGenerator, "get_candidates", watched)
    inputs = {"input_ids": INPUTS["input_ids"][1:2], "max_new_tokens": 20, "eos_token_id": None}
    expected = model.generate(**inputs, use_mtp=True)

    class Watched(MultiToken):
        __slots__ = ()

        def draft(self, batch, lengths, pick):
            draft = super().draft(batch, lengths, pick)
            ours.append((batch.rows[0].since(0), draft.tokens[0]))
            return draft

    output = dk.generate(model, **inputs, strategy="assisted", drafter=Watched(), adaptive=False)
    assert torch.equal(output, expected)
    pairs = {tuple(text): block for text, block in theirs}
    whole = [(text, block) for text, block in ours if len(block) == 2]  # there is less at the end
    assert len(whole) > 5
    assert all(pairs[tuple(text)] == block for text, block in whole)


def test_heads_that_are_given_are_used(fresh):
    heads = MtpModel.from_pretrained(fresh)
    fresh.config.name_or_path = ""
    drafter = ("multi_token", {"model": heads})
    output = run(fresh, strategy="assisted", drafter=drafter, adaptive=False)
    assert output.stats.drafted > 0


def test_the_model_is_as_it_was_when_heads_are_read(fresh):
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    modules, config = [id(module) for module in fresh.modules()], fresh.config.to_dict()
    noise = torch.random.get_rng_state()
    run(fresh, use_mtp=True)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    assert before.keys() == fresh.state_dict().keys()
    assert (modules, config) == ([id(module) for module in fresh.modules()], fresh.config.to_dict())
    assert torch.equal(noise, torch.random.get_rng_state())
    assert not any(module.training for module in fresh.modules())


def test_heads_are_read_once_and_go_with_their_model(folder, monkeypatch):
    calls, original = [], MtpModel.from_pretrained.__func__

    def counted(cls, *args, **keywords):
        calls.append(1)
        return original(cls, *args, **keywords)

    monkeypatch.setattr(MtpModel, "from_pretrained", classmethod(counted))
    twin = loaded(folder)
    run(twin, use_mtp=True)
    run(twin, use_mtp=True)
    assert len(calls) == 1
    gone = weakref.ref(twin)
    del twin
    gc.collect()
    assert gone() is None


def test_heads_follow_a_model_that_was_converted(fresh):
    run(fresh, use_mtp=True)
    fresh.float()
    output = run(fresh, use_mtp=True, strategy="assisted", adaptive=False)
    assert output.stats.drafted > 0


REFUSED = {
    "no heads": (
        lambda model: tiny_llama(VOCAB),
        {},
        dk.ParameterError,
        "has none .*is None",
    ),
    "no files": (
        lambda model: WithTwoHeads(Glm4MoeConfig(**CONFIG)).eval(),
        {},
        dk.ParameterError,
        "can't be read from '': the model was not loaded from files",
    ),
    "what the text before was": (
        lambda model: model,
        {"past_key_values": None},
        dk.CapabilityError,
        "past_key_values holds none",
    ),
    "two drafters": (
        lambda model: model,
        {"prompt_lookup_num_tokens": 3},
        dk.ParameterError,
        "prompt_lookup_num_tokens and use_mtp are given",
    ),
    "beams": (lambda model: model, {"num_beams": 2}, dk.ParameterError, "use_mtp would have no effect"),
    "another strategy": (
        lambda model: model,
        {"strategy": "greedy"},
        dk.ParameterError,
        "use_mtp=True would have no effect",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_name(model, name):
    make, arguments, error, match = REFUSED[name]
    target = make(model)
    inputs = {"input_ids": torch.tensor([[5, 3, 7, 2]]), "attention_mask": torch.ones(1, 4)}
    if "past_key_values" in arguments:
        cache = DynamicCache(config=target.config)
        target(inputs["input_ids"][:, :3], past_key_values=cache)
        arguments = {"past_key_values": cache}
    with pytest.raises(error, match=match):
        run(target, use_mtp=True, **inputs, **arguments)


def test_files_without_heads_are_refused_with_the_next_step(model, tmp_path):
    model.save_pretrained(tmp_path)
    bare = WithTwoHeads.from_pretrained(tmp_path, dtype=torch.float64).eval()
    with pytest.raises(
        dk.ParameterError, match=r"weights are missing(.|\n)*Load the model from files that have"
    ):
        run(bare, use_mtp=True)


def test_the_kit(profile):
    target = tiny_llama(VOCAB, num_mtp_layers=2)  # exact, as a mixture of experts is not
    with torch.random.fork_rng(devices=[]):
        heads = MtpModel(target, 2).eval()
    randomize(heads.layers.double(), torch.Generator().manual_seed(2))
    check_drafter(MultiToken(heads), target=target, profile=profile)
