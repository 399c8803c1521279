"""The rows of ``make bench`` for the start: processes that print one token, from their call to their end.

The base is what people write: a script with transformers. A cold start has an empty cache: the model is
converted, or the kernels are compiled.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decodekit.default_model import default_model, gguf_file

from tests.bench.rows import Row

__all__ = ["start_rows"]

QUESTION = "Why is the sky blue?"
COMMAND = ["-m", "decodekit", "generate", QUESTION, "--max-new-tokens", "1", "--dtype"]
SCRIPT = """
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, dtype, *file = sys.argv[1:]
more = {"gguf_file": file[0]} if file else {}
tokenizer = AutoTokenizer.from_pretrained(folder, **more)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **more)
messages = [{"role": "user", "content": "Why is the sky blue?"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
tokens = model.generate(**inputs, max_new_tokens=1, do_sample=False)
print(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :]))
"""


def _process(arguments: list[str], cache: Path | None = None) -> None:
    """Run Python to its end.

    Raises:
        RuntimeError: it failed; the message is what it wrote to standard error.
    """
    own = {"DECODEKIT_CACHE_DIR": str(cache)} if cache is not None else {}
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    assert done.stdout.strip(), "no token was printed"


def _transformers(dtype: str) -> None:
    _process(["-c", SCRIPT, str(default_model()), dtype])


def _transformers_from_gguf() -> None:
    file = gguf_file()
    _process(["-c", SCRIPT, str(file.parent), "float32", file.name])


def _without_model() -> None:
    with tempfile.TemporaryDirectory() as empty:
        _process([*COMMAND, "float32"], Path(empty))


def _without_kernels() -> None:
    folder = default_model()
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / folder.name).symlink_to(folder, target_is_directory=True)
        _process([*COMMAND, "bfloat16", "--compile"], Path(empty))


def start_rows() -> dict[str, Row]:
    """The rows by name; the cold ones take up to a minute a run."""

    def script(dtype: str) -> Callable[[], None]:
        return lambda: _transformers(dtype)

    def command(*more: str) -> Callable[[], None]:
        return lambda: _process([*COMMAND, *more])

    cold: dict[str, Any] = {"slow": True, "warm": False, "runs": 1}
    base = "transformers script"
    return {
        "start, eager, warm": Row(base, script("float32"), command("float32")),
        "start, compiled, warm": Row(base, script("bfloat16"), command("bfloat16", "--compile"), limit=10),
        "start, eager, cold": Row(f"{base}, GGUF", _transformers_from_gguf, _without_model, **cold),
        "start, compiled, cold": Row(base, script("bfloat16"), _without_kernels, **cold),
    }
