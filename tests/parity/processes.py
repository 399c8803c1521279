"""What each of several processes runs, for the tests of synced_gpus."""

import datetime

import decodekit as dk
import torch
from decodekit.testing.models import tiny_llama

CASES = {
    "greedy": {},
    "sample": {"do_sample": True, "seed": 3, "num_return_sequences": 2},
    "beam": {"num_beams": 3},
    "guidance": {"guidance_scale": 1.5},
    "output": {"return_dict_in_generate": True},
    "a cache": {"use_cache": False},
    "an encoder": {},
}
PROMPTS = [[4, 2, 3], [5]]  # lengths, by rank
NEW = [4, 11]
EOS = [2, 9, 11, 14, 20]


def model_of(name):
    if name == "an encoder":
        from tests.parity.architectures import model_of as architecture

        return architecture("bart")
    return tiny_llama(32)


def arguments_of(name, rank):
    lengths = PROMPTS[rank]
    width, left = max(lengths), name != "an encoder"
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    mask = mask if left else mask.flip(1)
    ids = (torch.arange(len(lengths) * width).view(len(lengths), width) % 20 + 5) * mask
    ends = EOS if name in ("greedy", "sample", "output") else None
    inputs = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": NEW[rank], "eos_token_id": ends}
    return {**inputs, **CASES[name]}


def passes_and_tokens(name, rank, **arguments):
    """How often the model ran, and what came out."""
    model, passes = model_of(name), []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    try:
        result = dk.generate(model, **arguments_of(name, rank), **arguments)
    finally:
        handle.remove()
    return len(passes), getattr(result, "sequences", result)


def run(rank, folder):
    """All cases as one of two processes; the results are left in the folder."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=len(PROMPTS),
        timeout=datetime.timedelta(seconds=60),
    )
    found = {name: passes_and_tokens(name, rank, synced_gpus=True) for name in CASES}
    torch.save(found, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()
