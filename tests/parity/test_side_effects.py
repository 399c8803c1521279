"""However a call ends, the model, the process and the caller's arguments are as they were."""

import contextlib
import copy
import functools
import os
import random

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from hypothesis import event, given
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import DynamicCache, GenerationConfig, GenerationMixin

from tests.parity.architectures import inputs_of, model_of

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)
TENSORS = ("_parameters", "_buffers", "_modules")
STRATEGIES = {
    "greedy": {},
    "sample": {"do_sample": True, "top_k": 5},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "draft model": {"num_assistant_tokens": 3},
    "guidance": {"guidance_scale": 1.5},
    "output": {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
    "nothing new": {"max_new_tokens": 0},
    "refused": {"max_new_token": 3},
}
DRAFTS = {"bart": "bart", "t5": "t5", "gemma3": "qwen3", "gpt2": "qwen3", "qwen2_vl": "gpt2"}
NAMES = ["bart", "blip2", "falcon_h1", "gemma3", "gpt2", "qwen2_vl", "t5", "whisper"]
OWN_GENERATE = {"blip2", "whisper"}  # these have checks of their own
PLACES = ["nowhere", "forward", "logits_processor", "stopping_criteria", "put", "end"]


@functools.cache
def used(name):
    """The model after a call of transformers: the first forward pass of a model installs hooks of its own."""
    model = model_of(name)
    with torch.random.fork_rng():
        model.generate(
            **inputs_of(name), max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True
        )
    return model


def state_of(model):
    """Everything that the model is, by name."""
    state = {
        "config": model.config.to_dict(),
        "decoding": (model.generation_config, vars(model.generation_config)),
    }
    for name, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in (*HOOKS, *TENSORS)}
        state[f"{name}: attributes"] = own
        state[f"{name}: hooks"] = {key: dict(getattr(module, key)) for key in HOOKS}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"{name}: tensor"] = (id(tensor), tensor.detach().clone(), tensor.requires_grad, tensor.grad)
    return shallow(state)


def shallow(value):
    """Containers copied, all else kept as it is."""
    if isinstance(value, dict):
        return {key: shallow(item) for key, item in value.items()}
    return type(value)(map(shallow, value)) if type(value) in (list, tuple, set) else value


def assert_same(before, after, where=""):
    """By content for containers and tensors, by identity or equality for all else."""
    assert type(before) is type(after), where
    if isinstance(before, dict):
        assert before.keys() == after.keys(), where
        for key, value in before.items():
            assert_same(value, after[key], f"{where}[{key!r}]")
    elif isinstance(before, (list, tuple)):
        assert len(before) == len(after), where
        for place, pair in enumerate(zip(before, after, strict=True)):
            assert_same(*pair, f"{where}[{place}]")
    elif isinstance(before, torch.Tensor):
        assert before.dtype == after.dtype, where
        assert torch.equal(before, after), where
    else:
        assert before is after or before == after, where


def process():
    """What of the process a call might change."""
    return {
        "torch": torch.random.get_rng_state(),
        "random": random.getstate(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "types": (torch.get_default_dtype(), torch.get_num_threads()),
        "generate": GenerationMixin.generate,
        "environment": dict(os.environ),
    }


class Fault:
    """Raises at its n-th visit to one place."""

    def __init__(self, place, count, error):
        self.place, self.left, self.error = place, count, error
        self.fired = False
        self.ends = 0

    def visit(self, place):
        if place == self.place and not self.fired:
            self.left -= 1
            if self.left < 0:
                self.fired = True
                raise self.error("planted")

    def put(self, value):
        self.visit("put")

    def end(self):
        self.ends += 1
        self.visit("end")

    def process(self, input_ids, scores):
        self.visit("logits_processor")
        return scores

    def judge(self, input_ids, scores):
        self.visit("stopping_criteria")
        return False


@contextlib.contextmanager
def planted(fault, *models):
    handle = register_module_forward_pre_hook(
        lambda module, _: fault.visit("forward") if any(module is model for model in models) else None
    )
    try:
        yield
    finally:
        handle.remove()


def arguments_of(name, setting, fault, seed, configured):
    arguments = {**inputs_of(name), "max_new_tokens": 4, **STRATEGIES[setting]}
    if seed is not None:
        arguments["seed"] = seed
    if setting == "draft model":
        arguments["assistant_model"] = used(DRAFTS.get(name, "gpt2"))
    if configured:
        arguments["generation_config"] = GenerationConfig(
            suppress_tokens=[9, 10],
            pad_token_id=3,
            eos_token_id=[2, 7],
            bos_token_id=1,
            decoder_start_token_id=4,
        )
    return {
        **arguments,
        "logits_processor": [fault.process],
        "stopping_criteria": [fault.judge],
        "streamer": fault,
    }


@given(
    name=st.sampled_from(NAMES),
    setting=st.sampled_from(sorted(STRATEGIES)),
    seed=st.sampled_from([None, 7]),
    place=st.sampled_from(PLACES),
    count=st.integers(0, 4),
    error=st.sampled_from([RuntimeError, KeyboardInterrupt]),
    gradients=st.booleans(),
    training=st.booleans(),
    configured=st.booleans(),
)
def test_all_is_as_it_was(name, setting, seed, place, count, error, gradients, training, configured):
    model = used(name).train(training)
    fault = Fault(place, 0 if place == "end" else count, error)
    arguments = arguments_of(name, setting, fault, seed, configured)
    models = [model, *([arguments["assistant_model"]] if "assistant_model" in arguments else [])]
    given_, copied = shallow(arguments), {key: _copied(value) for key, value in arguments.items()}
    raised = None
    with torch.random.fork_rng(), torch.set_grad_enabled(gradients):
        before = [state_of(each) for each in models], process()
        with planted(fault, *models):
            try:
                dk.generate(model, **arguments)
            except (Exception, KeyboardInterrupt) as problem:
                raised = problem
        after = [state_of(each) for each in models], process()
    model.eval()
    if seed is None or training:  # draws and dropout come from torch's generator
        del before[1]["torch"], after[1]["torch"]
    assert_same(before, after)
    for key, value in arguments.items():
        assert value is given_[key] or isinstance(value, list)
        assert_same(copied[key], value, key)
    assert fault.ends == 1
    if fault.fired:
        assert isinstance(raised, error)
        assert str(raised) == "planted"
    elif raised is not None:
        event(f"{setting} of {name}: {type(raised).__name__}")
        assert isinstance(raised, ValueError if name in OWN_GENERATE else dk.DecodekitError), raised


def _copied(value):
    """What can be compared later: content of tensors and configurations, the object itself of all else."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    return copy.deepcopy(value) if isinstance(value, GenerationConfig) else shallow(value)


def holding(name="qwen3", tokens=4):
    """A cache with the beginning of two prompts."""
    model, ids = model_of(name), inputs_of(name)["input_ids"]
    with torch.no_grad():
        return model(ids[:, :tokens], past_key_values=DynamicCache(config=model.config)).past_key_values


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_new_token": 3},
        {"do_sample": True, "temperature": -1.0},
        {"processors": ["topp"]},
        {"cache_implementation": "static"},
        {"assistant_model": tiny_llama(40)},
        {"logits_processor": [5]},
        {"stop_strings": ["x"]},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "gaps"])
def test_a_cache_is_as_it_was_after_a_refusal(arguments, gaps):
    """With gaps in the mask it would be packed."""
    cache = holding()
    before = [(layer.keys.clone(), layer.values.clone(), shallow(vars(layer))) for layer in cache.layers]
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, 2] = 1 - gaps
    given_ = {"input_ids": inputs_of("qwen3")["input_ids"], "attention_mask": mask, "max_new_tokens": 3}
    with pytest.raises((dk.DecodekitError, LookupError)):
        dk.generate(model_of("qwen3"), **given_, past_key_values=cache, **arguments)
    after = [(layer.keys, layer.values, vars(layer)) for layer in cache.layers]
    assert_same(before, after)


def test_a_model_that_writes_into_configurations_finds_them_as_they_were():
    class Writes(type(model_of("gpt2"))):
        def generate(self, *args, assistant_model=None, **kwargs):
            self.generation_config.top_k = 7
            assistant_model.generation_config = GenerationConfig(top_k=8)
            return super().generate(*args, **kwargs)

    model, other = Writes(model_of("gpt2").config), copy.deepcopy(model_of("gpt2"))
    before = [state_of(each) for each in (model, other)]
    dk.generate(model, **inputs_of("gpt2"), max_new_tokens=2, assistant_model=other)
    assert_same(before, [state_of(each) for each in (model, other)])


class Planted:
    """Each of these leaves something behind, which the property must see."""

    @staticmethod
    def weight(model):
        next(model.parameters()).data[0] += 1

    @staticmethod
    def attribute(model):
        model.base_model.something = 3

    @staticmethod
    def hook(model):
        model.register_forward_hook(lambda *_: None)

    @staticmethod
    def gradient(model):
        next(model.parameters()).requires_grad_(False)

    @staticmethod
    def mode(model):
        model.base_model.train()

    @staticmethod
    def config(model):
        model.config.use_cache = not model.config.use_cache

    @staticmethod
    def decoding(model):
        model.generation_config.top_k = 3


@pytest.mark.parametrize("name", [name for name in vars(Planted) if not name.startswith("_")])
def test_what_is_left_behind_would_be_seen(name):
    model = copy.deepcopy(model_of("gpt2"))
    before = state_of(model)
    assert_same(before, state_of(model))
    getattr(Planted, name)(model)
    with pytest.raises(AssertionError):
        assert_same(before, state_of(model))
