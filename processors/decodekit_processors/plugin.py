"""Registers the processors of this package, as any third party's plugin would."""

from decodekit import Processor, hookimpl

from decodekit_processors.adaptive_p import AdaptiveP
from decodekit_processors.bad_words_ids import BadWordsIds
from decodekit_processors.begin_suppress_tokens import BeginSuppressTokens
from decodekit_processors.dry import DRY
from decodekit_processors.dynamic_temperature import DynamicTemperature
from decodekit_processors.encoder_no_repeat_ngram_size import EncoderNoRepeatNgramSize
from decodekit_processors.encoder_repetition_penalty import EncoderRepetitionPenalty
from decodekit_processors.epsilon_cutoff import EpsilonCutoff
from decodekit_processors.eta_cutoff import EtaCutoff
from decodekit_processors.exponential_decay_length_penalty import ExponentialDecayLengthPenalty
from decodekit_processors.forced_bos_token_id import ForcedBosTokenId
from decodekit_processors.forced_eos_token_id import ForcedEosTokenId
from decodekit_processors.frequency_penalty import FrequencyPenalty
from decodekit_processors.grammar import Grammar
from decodekit_processors.json_schema import JsonSchema
from decodekit_processors.kgw import KGW
from decodekit_processors.logit_bias import LogitBias
from decodekit_processors.min_new_tokens import MinNewTokens
from decodekit_processors.min_p import MinP
from decodekit_processors.mirostat_v1 import MirostatV1
from decodekit_processors.mirostat_v2 import MirostatV2
from decodekit_processors.no_repeat_ngram import NoRepeatNgram
from decodekit_processors.no_repeat_ngram_size import NoRepeatNgramSize
from decodekit_processors.p_less import PLess
from decodekit_processors.presence_penalty import PresencePenalty
from decodekit_processors.quadratic import Quadratic
from decodekit_processors.regex import Regex
from decodekit_processors.remove_invalid_values import RemoveInvalidValues
from decodekit_processors.renormalize_logits import RenormalizeLogits
from decodekit_processors.repetition_penalty import RepetitionPenalty
from decodekit_processors.sequence_bias import SequenceBias
from decodekit_processors.skew import Skew
from decodekit_processors.suppress_tokens import SuppressTokens
from decodekit_processors.synthid import SynthID
from decodekit_processors.temperature import Temperature
from decodekit_processors.tfs import TailFree
from decodekit_processors.top_a import TopA
from decodekit_processors.top_h import TopH
from decodekit_processors.top_k import TopK
from decodekit_processors.top_n_sigma import TopNSigma
from decodekit_processors.top_p import TopP
from decodekit_processors.typical_p import TypicalP
from decodekit_processors.unigram import Unigram
from decodekit_processors.xtc import XTC


@hookimpl
def register_processors() -> list[type[Processor]]:
    """The built-in processors, in the order of their names."""
    return [
        AdaptiveP,
        BadWordsIds,
        BeginSuppressTokens,
        DRY,
        DynamicTemperature,
        EncoderNoRepeatNgramSize,
        EncoderRepetitionPenalty,
        EpsilonCutoff,
        EtaCutoff,
        ExponentialDecayLengthPenalty,
        ForcedBosTokenId,
        ForcedEosTokenId,
        FrequencyPenalty,
        Grammar,
        JsonSchema,
        KGW,
        LogitBias,
        MinNewTokens,
        MinP,
        MirostatV1,
        MirostatV2,
        NoRepeatNgram,
        NoRepeatNgramSize,
        PLess,
        PresencePenalty,
        Quadratic,
        Regex,
        RemoveInvalidValues,
        RenormalizeLogits,
        RepetitionPenalty,
        SequenceBias,
        Skew,
        SuppressTokens,
        SynthID,
        Temperature,
        TailFree,
        TopA,
        TopH,
        TopK,
        TopNSigma,
        TopP,
        TypicalP,
        Unigram,
        XTC,
    ]
