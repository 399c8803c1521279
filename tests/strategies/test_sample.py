import decodekit as dk
import pytest
import torch
from decodekit.testing import strategy_checks
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama
from decodekit_strategies.sample import Sample

CHECKS = dict(strategy_checks(Sample))
RAGGED = {
    "input_ids": torch.tensor([[0, 0, 5, 6], [3, 4, 5, 7], [0, 8, 9, 3]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]),
}


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize("model", [tiny_llama(), CacheHashModel(16, pad_token_id=0), MarkovModel.random(10)])
@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0},
        {"top_k": 0, "eos_token_id": [2, 5, 7], "pad_token_id": 0},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_without_a_seed_the_same_tokens_as_transformers(model, options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = model.generate(**RAGGED, max_new_tokens=12, do_sample=True, **options)
        torch.manual_seed(3)
        ours = dk.generate(model, **RAGGED, max_new_tokens=12, do_sample=True, **options)
    assert torch.equal(ours, theirs)


def test_rows_at_temperature_0_are_greedy_and_the_others_draw():
    model, options = tiny_llama(eos_token_id=None), {"max_new_tokens": 8, "seed": 1, "top_k": 0}
    greedy = dk.generate(model, **RAGGED, max_new_tokens=8)
    mixed = dk.generate(model, **RAGGED, do_sample=True, temperature=[0.0, 1.0, 0.0], **options)
    warm = dk.generate(model, **RAGGED, do_sample=True, **options)
    assert mixed[0].tolist() == greedy[0].tolist()
    assert mixed[2].tolist() == greedy[2].tolist()
    assert mixed[1].tolist() == warm[1].tolist() != greedy[1].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", [0, None])
def test_a_model_in_half_precision_never_gives_an_impossible_token(dtype, seed):
    model = tiny_llama(64, dtype=dtype, eos_token_id=None)
    ids = torch.tensor([[3]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = dk.generate(
            model,
            ids,
            max_new_tokens=4,
            do_sample=True,
            top_k=3,
            num_return_sequences=500,
            seed=seed,
            output_scores=True,
            return_dict_in_generate=True,
        )
    drawn = torch.stack(out.scores, dim=1).gather(2, out.sequences[:, 1:, None])
    assert drawn.dtype == torch.float32
    assert drawn.isfinite().all()
    assert len(out.sequences.unique(dim=0)) > 50
