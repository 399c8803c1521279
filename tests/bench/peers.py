"""The rows of ``make bench`` against other engines: the same prompt, number of tokens and threads.

llama.cpp and OpenVINO read the GGUF from which the default model is converted, CTranslate2 a conversion of
its checkpoint, which is kept in decodekit's cache. Each generates a fixed number of tokens, whatever they
are.
"""

import functools
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs
import decodekit as dk
import torch
from decodekit.converted import cache_folder
from decodekit.default_model import default_model, gguf_file

from tests.bench.models import STORY, loaded, read_bytes
from tests.bench.rows import Missing, Row

__all__ = ["ENGINES", "Engine", "peer_rows", "peer_versions"]

NEW_TOKENS = 64
Generate = Callable[[Sequence[int]], int]


def _llama_cpp() -> Generate:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf_file())
    params.n_ctx = 512
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.verbosity = 1  # errors only
    server = xllamacpp.Server(params)

    def generate(prompt: Sequence[int]) -> int:
        asked = {
            "prompt": list(prompt),
            "temperature": 0,
            "max_tokens": NEW_TOKENS,
            "ignore_eos": True,
            "cache_prompt": False,  # or the prompt of the last run would be reused
        }
        return server.handle_completions(asked)["usage"]["completion_tokens"]

    return generate


def _ctranslate2(compute_type: str) -> Generate:
    import ctranslate2

    folder = cache_folder() / "bench" / f"ctranslate2-{ctranslate2.__version__}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            made = Path(unfinished) / "model"
            ctranslate2.converters.TransformersConverter(str(default_model())).convert(str(made))
            made.rename(folder)
    _, tokenizer = loaded()
    model = ctranslate2.Generator(
        str(folder),
        device="cpu",
        compute_type=compute_type,
        inter_threads=1,
        intra_threads=torch.get_num_threads(),
    )

    def generate(prompt: Sequence[int]) -> int:
        words = tokenizer.convert_ids_to_tokens(list(prompt))
        length = {"max_length": NEW_TOKENS, "min_length": NEW_TOKENS}
        [result] = model.generate_batch([words], include_prompt_in_result=False, sampling_topk=1, **length)
        return len(result.sequences_ids[0])

    return generate


def _openvino() -> Generate:
    import numpy as np
    import openvino
    import openvino_genai

    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino_genai.LLMPipeline(str(gguf_file()), "CPU", **threads)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = NEW_TOKENS
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False

    def generate(prompt: Sequence[int]) -> int:
        result = model.generate(openvino.Tensor(np.array([prompt], dtype=np.int64)), config)
        return len(result.tokens[0])

    return generate


@attrs.frozen(eq=False)
class Engine:
    """Another engine, in one format of the weights.

    Attributes:
        title: as the table calls it.
        module: what is imported.
        package: what pip installs.
        load: loads the model; gives a function from a prompt's tokens to how many it gave.
        ours: the rows: ours by dtype, backend and whether it is compiled, with the target, if there is one.
    """

    title: str
    module: str
    package: str
    load: Callable[[], Generate]
    ours: tuple[tuple[str, str, bool, float | None], ...]


HALF = "bfloat16"
ENGINES = (
    Engine(
        "llama.cpp Q4_1",
        "xllamacpp",
        "xllamacpp",
        _llama_cpp,
        ((HALF, "int8", True, 1.2), (HALF, "int4", True, None), (HALF, "bnb-nf4", False, None)),
    ),
    Engine(
        "CTranslate2 float32",
        "ctranslate2",
        "ctranslate2",
        functools.partial(_ctranslate2, "float32"),
        (("float32", "none", True, 1.0), ("float32", "none", False, None)),
    ),
    Engine(
        "CTranslate2 int8",
        "ctranslate2",
        "ctranslate2",
        functools.partial(_ctranslate2, "int8"),
        ((HALF, "int8", True, None),),
    ),
    Engine(
        "OpenVINO Q4_1",
        "openvino_genai",
        "openvino-genai",
        _openvino,
        ((HALF, "int8", True, None), (HALF, "int4", True, None), (HALF, "bnb-nf4", False, None)),
    ),
)


def peer_versions() -> str:
    """The installed engines with their versions, for the header."""
    found = []
    for package in dict.fromkeys(engine.package for engine in ENGINES):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _load(engine: Engine) -> Generate:
    if importlib.util.find_spec(engine.module) is None:
        message = f"{engine.package} is not installed: pip install -c constraints.txt {engine.package}"
        raise Missing(message)
    return engine.load()


def _row(
    engine: Engine,
    load: Callable[[Engine], Generate],
    dtype: str,
    quant: str,
    compiled: bool,
    target: float | None,
) -> Row:
    def prompt() -> list[int]:
        return loaded()[1](STORY)["input_ids"]

    def theirs() -> None:
        count = load(engine)(prompt())
        assert count == NEW_TOKENS, f"{engine.title} gave {count} tokens, not {NEW_TOKENS}"

    def ours() -> None:
        model, _ = loaded(dtype, quant)
        ids = torch.tensor([prompt()])
        out = dk.generate(
            model,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            compile=compiled,
        )
        assert out.shape[1] == ids.shape[1] + NEW_TOKENS

    reads = functools.partial(read_bytes, dtype, quant, NEW_TOKENS / 2)
    return Row(engine.title, theirs, ours, target=target, tokens=NEW_TOKENS, reads=reads, slow=not compiled)


def peer_rows() -> dict[str, Row]:
    """The rows by name; an engine is loaded once for all its rows, when the first of them runs."""
    load = functools.cache(_load)
    return {
        f"{engine.title} against {'compiled' if compiled else 'eager'} "
        f"{dtype if quant == 'none' else quant}": _row(engine, load, dtype, quant, compiled, target)
        for engine in ENGINES
        for dtype, quant, compiled, target in engine.ours
    }
