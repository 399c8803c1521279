"""Every logits processor of transformers: our own keeps the same tokens, and theirs is shown the same."""

import inspect
from types import SimpleNamespace

import decodekit as dk
import pytest
import torch
from decodekit import CallContext, Chain, History
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from tests.parity.differential import MODELS, VOCAB, assert_same, both

PROMPT, NEW = [[5, 6, 7, 5], [9, 4, 9, 9]], [[8, 5, 6], [4, 9, 9]]
IDS = torch.tensor([prompt + new for prompt, new in zip(PROMPT, NEW, strict=True)])
HISTORY = History.of(PROMPT, NEW)
CONTEXT = CallContext(vocab_size=VOCAB, eos_token_ids=(2, 3), max_new_tokens=4, prompt_width=4)
EOS = [2, 3]


def prefix(batch_id, tokens):
    return [int(tokens[-1]), 1, batch_id]


def no_speech():
    """Told to listen at the first step, and to its logits alone."""
    processor = theirs.WhisperNoSpeechDetection(3, 1)
    processor.set_begin_index(4)
    return processor


OURS = {
    "TemperatureLogitsWarper": ("temperature=0.7", lambda: theirs.TemperatureLogitsWarper(0.7)),
    "RepetitionPenaltyLogitsProcessor": (
        "repetition_penalty=1.3",
        lambda: theirs.RepetitionPenaltyLogitsProcessor(1.3),
    ),
    "EncoderRepetitionPenaltyLogitsProcessor": (
        "encoder_repetition_penalty=1.3",
        lambda: theirs.EncoderRepetitionPenaltyLogitsProcessor(1.3, torch.tensor(PROMPT)),
    ),
    "TopPLogitsWarper": ("top_p=0.6", lambda: theirs.TopPLogitsWarper(0.6)),
    "TopKLogitsWarper": ("top_k=5", lambda: theirs.TopKLogitsWarper(5)),
    "TopHLogitsWarper": ("top_h=0.4", lambda: theirs.TopHLogitsWarper(0.4)),
    "MinPLogitsWarper": ("min_p=0.2", lambda: theirs.MinPLogitsWarper(0.2)),
    "TypicalLogitsWarper": ("typical_p=0.6", lambda: theirs.TypicalLogitsWarper(0.6)),
    "EpsilonLogitsWarper": ("epsilon_cutoff=0.01", lambda: theirs.EpsilonLogitsWarper(0.01)),
    "EtaLogitsWarper": ("eta_cutoff=0.01", lambda: theirs.EtaLogitsWarper(0.01)),
    "NoRepeatNGramLogitsProcessor": (
        "no_repeat_ngram_size=2",
        lambda: theirs.NoRepeatNGramLogitsProcessor(2),
    ),
    "EncoderNoRepeatNGramLogitsProcessor": (
        "encoder_no_repeat_ngram_size=2",
        lambda: theirs.EncoderNoRepeatNGramLogitsProcessor(2, torch.tensor(PROMPT)),
    ),
    "SequenceBiasLogitsProcessor": (
        "sequence_bias=[[[5, 6, 1], 2.5], [[9, 9], -3.0], [[11], 1.0]]",
        lambda: theirs.SequenceBiasLogitsProcessor([[[5, 6, 1], 2.5], [[9, 9], -3.0], [[11], 1.0]]),
    ),
    "NoBadWordsLogitsProcessor": (
        "bad_words_ids=[[5, 6, 1], [9, 9], [11], [2]]",
        lambda: theirs.NoBadWordsLogitsProcessor([[5, 6, 1], [9, 9], [11], [2]], EOS),
    ),
    "MinNewTokensLengthLogitsProcessor": (
        "min_new_tokens=5",
        lambda: theirs.MinNewTokensLengthLogitsProcessor(4, 5, EOS),
    ),
    "ForcedEOSTokenLogitsProcessor": (
        "forced_eos_token_id=[2]",
        lambda: theirs.ForcedEOSTokenLogitsProcessor(8, 2),
    ),
    "InfNanRemoveLogitsProcessor": ("remove_invalid_values", theirs.InfNanRemoveLogitsProcessor),
    "ExponentialDecayLengthPenalty": (
        "exponential_decay_length_penalty=[1, 1.5]",
        lambda: theirs.ExponentialDecayLengthPenalty((1, 1.5), EOS, 4),
    ),
    "LogitNormalization": ("renormalize_logits", theirs.LogitNormalization),
    "SuppressTokensLogitsProcessor": (
        "suppress_tokens=[4, 7]",
        lambda: theirs.SuppressTokensLogitsProcessor([4, 7]),
    ),
}
"""Of each of their classes our text, and theirs for the rows above."""
ELSEWHERE = {
    "MinLengthLogitsProcessor": "min_new_tokens, as the length of a prompt is known: test_generate",
    "SuppressTokensAtBeginLogitsProcessor": "begin_suppress_tokens, of rows that begin: below",
    "ForcedBOSTokenLogitsProcessor": "forced_bos_token_id, of rows of one token: below",
    "PrefixConstrainedLogitsProcessor": "prefix_allowed_tokens_fn: test_generate and test_wrapped",
}
WHISPER = SimpleNamespace(no_timestamps_token_id=19, eos_token_id=10, max_initial_timestamp_index=4)
AS_THEIRS = {
    "WhisperTimeStampLogitsProcessor": lambda: theirs.WhisperTimeStampLogitsProcessor(WHISPER, 4),
    "WhisperNoSpeechDetection": lambda: no_speech(),
    "AlternatingCodebooksLogitsProcessor": lambda: theirs.AlternatingCodebooksLogitsProcessor(4, 12, 10),
    "BarkEosPrioritizerLogitsProcessor": lambda: theirs.BarkEosPrioritizerLogitsProcessor(EOS, 0.05),
    "WatermarkLogitsProcessor": lambda: theirs.WatermarkLogitsProcessor(VOCAB, "cpu"),
    "SynthIDTextWatermarkLogitsProcessor": lambda: theirs.SynthIDTextWatermarkLogitsProcessor(
        ngram_len=3,
        keys=[1, 2, 3],
        sampling_table_size=64,
        sampling_table_seed=0,
        context_history_size=8,
        device="cpu",
    ),
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": lambda: (
        theirs.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, MODELS["llama"])
    ),
    "DiaEOSChannelFilterLogitsProcessor": lambda: theirs.DiaEOSChannelFilterLogitsProcessor(2, 20),
    "DiaEOSDelayPatternLogitsProcessor": lambda: theirs.DiaEOSDelayPatternLogitsProcessor([0, 2], 20, 9),
    "ClassifierFreeGuidanceLogitsProcessor": lambda: theirs.ClassifierFreeGuidanceLogitsProcessor(2.0),
    "DiaClassifierFreeGuidanceLogitsProcessor": lambda: theirs.DiaClassifierFreeGuidanceLogitsProcessor(2.0),
}
"""Of audio and of models with a second branch: these work as they are, in ``logits_processor``."""
TWO_BRANCHES = {"ClassifierFreeGuidanceLogitsProcessor", "DiaClassifierFreeGuidanceLogitsProcessor"}


def test_none_of_their_classes_is_forgotten():
    every = {
        name
        for name, cls in inspect.getmembers(theirs, inspect.isclass)
        if issubclass(cls, theirs.LogitsProcessor) and cls is not theirs.LogitsProcessor
    }
    assert every == OURS.keys() | ELSEWHERE.keys() | AS_THEIRS.keys()


@pytest.mark.parametrize("name", OURS)
@given(seed=st.integers(0, 9_999), scale=st.sampled_from([0.3, 3.0, 30.0]), holes=st.booleans())
def test_ours_keeps_the_same_tokens_with_the_same_logits(name, seed, scale, holes):
    text, make = OURS[name]
    x = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale
    x = x.masked_fill(x < -scale, -torch.inf) if holes else x
    wanted = make()(IDS, x.clone())
    chain = Chain.parse(text).bind(CONTEXT)
    for got in (chain.apply(x, HISTORY, [(), ()])[0], chain.run(x, HISTORY, [(), ()])[0].dense):
        assert torch.equal(got.isneginf(), wanted.isneginf())
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("begin_suppress_tokens=[4, 7]", lambda: theirs.SuppressTokensAtBeginLogitsProcessor([4, 7], 1)),
        ("forced_bos_token_id=6", lambda: theirs.ForcedBOSTokenLogitsProcessor(6)),
    ],
)
@pytest.mark.parametrize("new", [0, 1])
def test_ours_of_the_beginning_too(text, make, new):
    x = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(new))
    ours = Chain.parse(text).bind(CONTEXT).run(x, History.of([[5]], [[8] * new]), [()])[0].dense
    assert torch.equal(ours, make()(torch.tensor([[5] + [8] * new]), x.clone()))


@pytest.mark.parametrize("strategy", [{}, {"do_sample": True, "top_k": 9}], ids=["greedy", "sample"])
@pytest.mark.parametrize("name", sorted(AS_THEIRS.keys() - TWO_BRANCHES))
def test_theirs_is_shown_the_same(name, strategy):
    arguments = {
        **strategy,
        "input_ids": torch.tensor(PROMPT),
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
        "max_new_tokens": 8,
        "eos_token_id": None,
        "pad_token_id": 0,
        "logits_processor": [AS_THEIRS[name]()],
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    assert_same(*both(MODELS["llama"], **arguments), 4, eos=())


def test_whisper_is_told_of_speech_as_by_them():
    told = []
    for generate in (MODELS["llama"].generate, lambda **kw: dk.generate(MODELS["llama"], **kw)):
        processor = no_speech()
        generate(
            input_ids=torch.tensor(PROMPT), max_new_tokens=2, pad_token_id=0, logits_processor=[processor]
        )
        told.append(processor.no_speech_prob)
    torch.testing.assert_close(*told)
    assert (told[0] > 0).all()


@pytest.mark.parametrize("name", sorted(TWO_BRANCHES))
def test_what_needs_a_model_of_two_branches_says_so_as_there(name):
    arguments = {"input_ids": torch.tensor(PROMPT), "max_new_tokens": 2, "pad_token_id": 0}
    for generate in (MODELS["llama"].generate, lambda **kw: dk.generate(MODELS["llama"], **kw)):
        with pytest.raises(ValueError, match="Logits should have twice the batch size of the input ids"):
            generate(**arguments, logits_processor=[AS_THEIRS[name]()])
