"""With mlx-lm itself: its own loop decodes from a table as ours does."""

import importlib
import sys

import decodekit as dk
import pytest
import torch
from decodekit.adapters import to_mlx_lm
from decodekit.testing.models import MarkovModel

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")


class Table:
    """A model of mlx-lm whose logits are a row of a table."""

    layers = ()

    def __init__(self, table):
        self.table = mx.array(table.float().numpy())

    def __call__(self, tokens, cache=None, **more):
        return self.table[tokens]

    def make_cache(self):
        return []


def test_mlx_lm_decodes_as_we_do(processor):
    model = MarkovModel.random(7, seed=4)
    step = importlib.import_module("mlx_lm.generate").generate_step
    prompt = [3, 1, 5]
    found = step(mx.array(prompt), Table(model.table), max_tokens=9, logits_processors=[to_mlx_lm(processor)])
    theirs = [int(token) for token, _ in found]
    ours = dk.generate(
        model,
        torch.tensor([prompt]),
        processors=[processor],
        max_new_tokens=9,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert theirs == ours[0, 3:].tolist()


def test_each_call_gives_what_the_core_gives(processor, row, expected):
    prompt, tokens, logits = row
    process = to_mlx_lm(processor)
    for step, x in enumerate(logits):
        out = process(mx.array(prompt + tokens[:step]), mx.array(x[None].numpy()))
        assert out.shape == (1, 6)
        torch.testing.assert_close(torch.tensor(out.tolist())[0], expected[step], rtol=0, atol=1e-6)


def test_the_dtype_stays(processor):
    assert to_mlx_lm(processor)(mx.array([1]), mx.zeros((1, 4), mx.bfloat16)).dtype == mx.bfloat16


def test_a_missing_library_is_named(processor, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(dk.MissingLibraryError, match="to_mlx_lm needs the library mlx: pip install 'mlx-lm'"):
        to_mlx_lm(processor)
