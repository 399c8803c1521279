"""The other engines by modules with their published interfaces: what the rows give and take."""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tests.bench import peers
from tests.bench.models import STORY
from tests.bench.peers import NEW_TOKENS, peer_rows
from tests.bench.rows import Missing

LLAMA, CT2, OPENVINO = (
    "llama.cpp Q4_1 against compiled int8",
    "CTranslate2 float32 against eager float32",
    "OpenVINO Q4_1 against compiled int8",
)


@pytest.fixture
def install(monkeypatch, tmp_path, tiny):
    """Makes a module of what it is given; the cache is empty."""
    monkeypatch.setattr(peers, "gguf_file", lambda: Path("model.gguf"))
    monkeypatch.setattr(peers, "default_model", lambda: Path("checkpoint"))
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path))

    def make(name, **values):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    make.prompt = tiny[1](STORY)["input_ids"]
    make.words = tiny[1].convert_ids_to_tokens(make.prompt)
    return make


class Server:
    calls: ClassVar = []

    def __init__(self, params):
        threads = params.cpuparams.n_threads, params.cpuparams_batch.n_threads
        room = params.n_ctx // params.n_parallel >= NEW_TOKENS + len(STORY)
        self.calls[:] = [(params.model.path, *threads, room)]

    def handle_completions(self, asked):
        self.calls.append(asked)
        return {"usage": {"completion_tokens": asked["max_tokens"]}}


def common_params():
    parts = {name: types.SimpleNamespace() for name in ("model", "cpuparams", "cpuparams_batch")}
    return types.SimpleNamespace(**parts)


def test_llama_cpp_gets_prompt_and_threads_and_forgets_the_last_run(install):
    install("xllamacpp", CommonParams=common_params, Server=Server)
    row = peer_rows()[LLAMA]
    row.theirs()
    row.theirs()
    threads = torch.get_num_threads()
    length = {"max_tokens": NEW_TOKENS, "ignore_eos": True}
    asked = {"prompt": install.prompt, "temperature": 0, "cache_prompt": False, **length}
    assert Server.calls == [("model.gguf", threads, threads, True), asked, asked]


class TransformersConverter:
    made: ClassVar = []

    def __init__(self, path):
        self.made.append(path)

    def convert(self, output_dir):
        Path(output_dir).mkdir()


class BrokenConverter(TransformersConverter):
    def convert(self, output_dir):
        super().convert(output_dir)
        raise OSError


class Generator:
    calls: ClassVar = []

    def __init__(self, path, *, device, compute_type, inter_threads, intra_threads):
        assert Path(path).is_dir()
        self.calls.append((device, compute_type, inter_threads, intra_threads))

    def generate_batch(
        self, start_tokens, *, max_length, min_length, include_prompt_in_result, sampling_topk
    ):
        self.calls.append((start_tokens, max_length, min_length, include_prompt_in_result, sampling_topk))
        return [types.SimpleNamespace(sequences_ids=[[0] * max_length])]


def ctranslate2(install, converter):
    converters = types.SimpleNamespace(TransformersConverter=converter)
    install("ctranslate2", Generator=Generator, converters=converters, __version__="9")
    Generator.calls.clear()
    converter.made.clear()


def test_ctranslate2_gets_the_words_of_the_prompt_and_a_fixed_length(install):
    ctranslate2(install, TransformersConverter)
    peer_rows()[CT2].theirs()
    assert Generator.calls == [
        ("cpu", "float32", 1, torch.get_num_threads()),
        ([install.words], NEW_TOKENS, NEW_TOKENS, False, 1),
    ]


def test_ctranslate2_converts_once_and_keeps_nothing_broken(install):
    ctranslate2(install, BrokenConverter)
    with pytest.raises(OSError):  # noqa: PT011  # the fake raises nothing else
        peer_rows()[CT2].theirs()
    ctranslate2(install, TransformersConverter)
    for _ in range(2):
        peer_rows()[CT2].theirs()
    assert TransformersConverter.made == ["checkpoint"]


class LLMPipeline:
    calls: ClassVar = []
    given = NEW_TOKENS

    def __init__(self, models_path, device, **properties):
        self.calls[:] = [(models_path, device, properties)]

    def generate(self, inputs, generation_config):
        self.calls.append((inputs.tolist(), vars(generation_config)))
        return types.SimpleNamespace(tokens=[[0] * self.given])


def openvino(install):
    install("openvino", Tensor=lambda array: array)
    install("openvino_genai", LLMPipeline=LLMPipeline, GenerationConfig=types.SimpleNamespace)


def test_openvino_gets_tokens_and_threads_and_no_end(install):
    openvino(install)
    peer_rows()[OPENVINO].theirs()
    wanted = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    wanted |= {"do_sample": False, "apply_chat_template": False}
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    assert LLMPipeline.calls == [("model.gguf", "CPU", threads), ([install.prompt], wanted)]


def test_an_engine_that_stops_early_is_an_error(install, monkeypatch):
    openvino(install)
    monkeypatch.setattr(LLMPipeline, "given", 5)
    with pytest.raises(AssertionError, match="OpenVINO Q4_1 gave 5 tokens"):
        peer_rows()[OPENVINO].theirs()


@pytest.mark.usefixtures("tiny")
def test_ours_gives_as_many_tokens():
    row = peer_rows()[CT2]
    row.ours()
    assert row.tokens == NEW_TOKENS
    assert row.reads() > 0


@pytest.mark.parametrize(
    ("name", "package"), [(LLAMA, "xllamacpp"), (CT2, "ctranslate2"), (OPENVINO, "openvino-genai")]
)
def test_an_engine_that_is_not_installed_is_named(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Missing, match=f"^{package} is not installed: pip install .*{package}"):
        peer_rows()[name].theirs()
