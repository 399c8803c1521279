"""Several processes that share a model's weights run it equally often, whatever their prompts are."""

import time

import decodekit as dk
import pytest
import torch
import torch.multiprocessing as mp

from tests.parity.processes import CASES, PROMPTS, arguments_of, model_of, passes_and_tokens, run

SECONDS = 240


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, by rank and case."""
    folder = tmp_path_factory.mktemp("ranks")
    context = mp.spawn(run, args=(folder,), nprocs=len(PROMPTS), join=False)
    until = time.monotonic() + SECONDS
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < until, "a process waits for ever"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / str(rank)) for rank in range(len(PROMPTS))]


@pytest.mark.parametrize("name", CASES)
def test_every_process_runs_the_model_as_often(found, name):
    alone = [passes_and_tokens(name, rank) for rank in range(len(PROMPTS))]
    passes = [ranks[name][0] for ranks in found]
    assert len(set(passes)) == 1
    assert len({count for count, _ in alone}) > 1, "they would have been equal anyway"
    assert passes[0] >= max(count for count, _ in alone)
    for ranks, (_, tokens) in zip(found, alone, strict=True):
        assert torch.equal(ranks[name][1], tokens)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"prompt_lookup_num_tokens": 2}, "strategy='assisted'"),
        ({"assistant_model": model_of("greedy")}, "strategy='assisted'"),
        ({"prefill_chunk_size": 2}, "prefill_chunk_size"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
    ids=["look-up", "draft model", "pieces", "nothing"],
)
def test_what_would_run_it_a_different_number_of_times_is_refused(arguments, named, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with pytest.raises(dk.CapabilityError, match=f"synced_gpus=True needs the same forward.*{named}"):
            dk.generate(model_of("greedy"), **{**arguments_of("greedy", 0), **arguments}, synced_gpus=True)
    finally:
        torch.distributed.destroy_process_group()
