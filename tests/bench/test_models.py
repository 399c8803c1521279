import decodekit as dk
import torch
from decodekit.testing.models import tiny_llama
from transformers import DynamicCache

from tests.bench import models
from tests.bench.models import cache_bytes, read_bytes, weights


def parameters(model):
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def test_tied_embeddings_are_read_as_the_output_layer(tiny):
    model, _ = tiny
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert weights(model) == parameters(model)


def test_embeddings_that_are_not_tied_are_not_read():
    model = tiny_llama(tie_word_embeddings=False)
    assert weights(model) == parameters(model) - model.get_input_embeddings().weight.nbytes


def test_the_bytes_of_a_cache_are_those_of_its_tensors(tiny):
    model, _ = tiny
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.zeros(1, 7, dtype=torch.long), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cache_bytes(model, 7) == held
    assert read_bytes("float32", "none", 7) == weights(model) + held


def test_int8_is_read_as_it_is_packed(tiny):
    assert tiny is not None
    assert read_bytes("float32", "int8", 0) < 0.6 * read_bytes("float32", "none", 0)


def test_a_model_is_loaded_once_however_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(dk, "load", lambda **options: asked.append(options) or object())
    models._loaded.cache_clear()
    same = {
        id(models.loaded()),
        id(models.loaded("float32")),
        id(models.loaded(dtype="float32", quant="none")),
    }
    models._loaded.cache_clear()
    assert len(same) == len(asked) == 1
