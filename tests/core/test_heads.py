"""Multi-token heads beside a session say what transformers' own say of each row alone."""

import random

import attrs
import decodekit as dk
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MellumConfig,
    MellumForCausalLM,
)
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

VOCAB = 9
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "topk_group": 1,
}


def with_heads(make, config, count):
    """A random model in float64, and random heads for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make(config).double().eval()
        if make is not LlamaForCausalLM:
            model.set_experts_implementation("eager")  # the others take no float64
        heads = MtpModel(model, count).eval()
        heads.layers.double()
        for part in (model, heads.layers):
            for parameter in part.parameters():
                parameter.data.normal_(0, 0.3)
    return model, heads


MODELS = {
    "llama": with_heads(LlamaForCausalLM, LlamaConfig(**SMALL, num_mtp_layers=3), 3),
    "glm4_moe": with_heads(
        Glm4MoeForCausalLM, Glm4MoeConfig(**SMALL, **ROUTED, head_dim=8, num_nextn_predict_layers=3), 3
    ),
    "deepseek_v3": with_heads(
        DeepseekV3ForCausalLM, DeepseekV3Config(**SMALL, **ROUTED, **LATENT, num_nextn_predict_layers=2), 2
    ),
    "mellum": with_heads(
        MellumForCausalLM,
        MellumConfig(
            **SMALL,
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            sliding_window=4,
            layer_types=["full_attention", "sliding_attention"],
            num_nextn_predict_layers=1,
        ),
        1,
    ),
}


def alone(model, heads, text):
    """The logits [K, V] that transformers' heads give after a text, when each takes the argmax."""
    hidden = model(torch.tensor([text[:-1]]), output_hidden_states=True).hidden_states[-1]
    _, logits, _ = heads(
        torch.tensor([text[1:]]),
        hidden,
        None,
        torch.arange(1, len(text))[None],
        MtpCache(config=heads.config),
    )
    return logits[0]


@attrs.frozen
class Compared(dk.Drafter):
    """Asks the heads for drafts of random depths, compares them, and drafts what is right now and then."""

    NAME = "compared"
    target: object = dk.param(help="The model.")
    model: object = dk.param(help="The heads.")
    random: object = dk.param(help="Chooses depths and drafts.")
    worst: list = attrs.field(factory=list)

    @property
    def heads(self):
        return self.model

    def draft(self, batch, lengths, pick):
        for _ in range(2):  # asked again, they say the same
            self._compare(batch, self.random.randint(0, len(self.model.layers)))
        right = [self._right(row) if self.random.random() < 0.6 else [] for row in batch.rows]
        return dk.Draft([block[:most] for block, most in zip(right, lengths, strict=True)])

    def _compare(self, batch, depth):
        ahead = batch.ahead(depth) if depth else None
        if ahead is None:
            return
        expected = torch.stack([alone(self.target, self.model, row.since(0)) for row in batch.rows])
        tokens = [[] for _ in batch.rows]
        for place in range(self.random.randint(1, depth)):
            logits = ahead.logits(tokens)
            self.worst.append(float((logits - expected[:, place]).abs().max()))
            tokens = [[*row, token] for row, token in zip(tokens, logits.argmax(1).tolist(), strict=True)]

    def _right(self, row):
        """What comes next, for up to 4 tokens."""
        text = row.since(0)
        for _ in range(self.random.randint(1, 4)):
            text.append(int(self.target(torch.tensor([text])).logits[0, -1].argmax()))
        return text[row.length :]


CASES = [
    *((name, {}) for name in MODELS),
    ("llama", {"use_cache": False}),
    ("llama", {"prefill_chunk_size": 3}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
@settings(max_examples=8)
@example(prompts=[[2, 2], [2, 2, 5]], seed=337)  # a row leaves while a head holds nothing
@given(
    prompts=st.lists(st.lists(st.integers(2, VOCAB - 1), min_size=2, max_size=8), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_rows_that_accept_different_numbers_of_tokens_are_as_each_alone(name, arguments, prompts, seed):
    model, heads = MODELS[name]
    drafter = Compared(model, heads, random.Random(seed))
    width = max(map(len, prompts))
    inputs = {
        "input_ids": torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts]),
        "max_new_tokens": 10,
        **arguments,
    }
    output = dk.generate(model, **inputs, strategy="assisted", drafter=drafter, adaptive=False)
    assert torch.equal(output, dk.generate(model, **inputs))
    assert max(drafter.worst, default=0) < 1e-6  # experts are chosen and weighed in float32
