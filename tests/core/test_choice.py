"""A strategy by name takes its parameters from the configuration, as transformers' own choice does."""

import copy

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from transformers import GenerationConfig

MODEL = tiny_llama(32)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
SEARCH = {"num_beams": 3, "length_penalty": -2.0, "early_stopping": "never", "max_new_tokens": 6}


def search_scores(**arguments):
    torch.manual_seed(0)
    return dk.generate(
        MODEL, IDS, **arguments, return_dict_in_generate=True, output_scores=True
    ).sequences_scores


def test_the_given_configuration_is_not_dropped():
    config = GenerationConfig(**SEARCH)
    assert torch.equal(search_scores(generation_config=config, strategy="beam"), search_scores(**SEARCH))
    assert config.to_dict() == GenerationConfig(**SEARCH).to_dict()


@pytest.mark.parametrize("do_sample", [False, True])
def test_nor_is_the_models(do_sample, monkeypatch):
    expected = search_scores(**SEARCH, do_sample=do_sample)
    for name, value in {**SEARCH, "do_sample": do_sample}.items():
        monkeypatch.setattr(MODEL.generation_config, name, value)
    assert torch.equal(search_scores(strategy="beam"), expected)


def test_keywords_and_pairs_come_first(monkeypatch):
    monkeypatch.setattr(MODEL.generation_config, "num_beams", 7)
    for strategy in ({"strategy": ("beam", {"num_beams": 3})}, {"strategy": "beam", "num_beams": 3}):
        output = dk.generate(
            MODEL, IDS, max_new_tokens=3, **strategy, return_dict_in_generate=True, output_scores=True
        )
        assert len(output.scores[0]) == 3 * len(IDS)


@pytest.mark.parametrize("drafts", [{"prompt_lookup_num_tokens": 3}, {"assistant_model": MODEL}], ids=list)
def test_what_drafts_is_not_dropped_beside_a_search(drafts):
    with pytest.raises(dk.ParameterError, match=f"{next(iter(drafts))} would have no effect.*num_beams=2"):
        dk.generate(MODEL, IDS, num_beams=2, max_new_tokens=2, **drafts)


@pytest.mark.parametrize("pair", [("beam", None), ("beam", [4]), ["beam"]], ids=str)
def test_a_pair_has_a_name_and_parameters(pair):
    with pytest.raises(dk.ParameterError, match=r"strategy=.*a pair"):
        dk.generate(MODEL, IDS, strategy=pair, max_new_tokens=2)


def test_sampling_and_not_sampling_contradict_each_other():
    with pytest.raises(dk.ParameterError, match="do_sample=False and strategy='sample' contradict"):
        dk.generate(MODEL, IDS, strategy="sample", do_sample=False)


def test_values_for_each_prompt_need_sampling_and_temperature_zero_does_not():
    with pytest.raises(dk.ParameterError, match=r"top_p=\[0.5, 0.6\] would have no effect.*do_sample=True"):
        dk.generate(MODEL, IDS, top_p=[0.5, 0.6], max_new_tokens=2)
    cold = dk.generate(MODEL, IDS, temperature=[0, 0], max_new_tokens=2)
    assert torch.equal(cold, dk.generate(MODEL, IDS, max_new_tokens=2))


@pytest.mark.parametrize(
    ("name", "value"),
    [("suppress_tokens", [20, 13]), ("temperature", 0.5), ("min_new_tokens", 2), ("min_length", 9)],
)
def test_beside_a_chain_no_field_of_a_given_configuration_is_dropped(name, value):
    config = GenerationConfig(do_sample=True, max_new_tokens=12, **{name: value})
    with pytest.raises(
        dk.ParameterError, match=rf"processors= is .* so {name}=.* in generation_config would"
    ):
        dk.generate(MODEL, IDS, config, processors=[])
    with pytest.raises(dk.ParameterError, match=rf"processors= is .* so {name}=.* would have no effect"):
        dk.generate(MODEL, IDS, do_sample=True, max_new_tokens=12, processors=[], **{name: value})


@pytest.mark.parametrize("copied", [True, False])
def test_the_models_own_fields_are_not_the_callers_and_defaults_say_nothing(copied, monkeypatch):
    arguments = {"max_new_tokens": 4, "processors": ["top_k=3"], "seed": 1, "do_sample": True}
    plain = dk.generate(MODEL, IDS, **arguments)
    for name, value in {"temperature": 0.6, "suppress_tokens": [5, 6], "top_p": 0.9}.items():
        monkeypatch.setattr(MODEL.generation_config, name, value)
    config = copy.deepcopy(MODEL.generation_config) if copied else MODEL.generation_config
    assert torch.equal(dk.generate(MODEL, IDS, config, **arguments), plain)
    config = GenerationConfig(temperature=1.0, top_k=50, repetition_penalty=1.0, typical_p=1.0)
    assert torch.equal(dk.generate(MODEL, IDS, config, **arguments), plain)


@attrs.frozen
class OfTopK(dk.Strategy):
    """Commits the last of the ``top_k`` best tokens."""

    NAME = "of_top_k"
    top_k: int = dk.param(1, range="[1, inf)", help="Which one.")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.scores.topk(self.top_k).indices[:, -1], p)


def test_a_field_that_the_strategy_takes_has_its_effect_there():
    config = GenerationConfig(top_k=3, max_new_tokens=4)
    ours = dk.generate(MODEL, IDS, config, strategy=OfTopK, processors=[])
    assert torch.equal(ours, dk.generate(MODEL, IDS, strategy=OfTopK(3), max_new_tokens=4))
