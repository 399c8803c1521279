"""Sequence bias: a number for sequences of tokens, added where the next token would complete one."""

from collections.abc import Mapping
from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._sequences import Endings, bias_of, endings
from decodekit_processors._token_ids import check_ids

__all__ = ["SequenceBias"]


@attrs.frozen
class SequenceBias(Processor):
    """Add a bias to the last token of a sequence wherever the row ends with the tokens before it.

    A sequence of one token is biased everywhere. Sequences that end alike add up.

    Source: transformers, the argument of that name; of one token the ``logit_bias`` of OpenAI's API.
    Range: sequence_bias holds pairs of token ids in [0, V) and a number in [-inf, inf); -inf forbids. Of
        a sequence that is given twice the last bias counts.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i + Σ b`` over the sequences that token i completes.
    Raises: ParameterError when there is no sequence, or one is empty or holds an id that is no token's,
        or a bias is NaN or +inf.
    """

    NAME: ClassVar[str] = "sequence_bias"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True, may_empty=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.BIAS)

    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = param(
        help="Pairs of token ids and a bias, e.g. [[[10, 45], -2.0], [[7], 1.5]]."
    )
    _groups: tuple[Endings, ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        biases: Mapping[tuple[int, ...], float] = dict(self.sequence_bias)
        if not biases or not all(biases) or not all(bias < float("inf") for bias in biases.values()):
            message = (
                f"sequence_bias={self.sequence_bias!r} is not allowed: give at least one sequence, each with "
                "at least one token id and a bias in [-inf, inf)"
            )
            raise ParameterError(message)
        check_ids(self.NAME, (token for sequence in biases for token in sequence))
        object.__setattr__(self, "_groups", endings(biases))

    def bind(self, context: CallContext) -> "SequenceBias":
        """Return itself, when all ids are below the vocabulary's size."""
        check_ids(self.NAME, (token for ids, _ in self.sequence_bias for token in ids), context.vocab_size)
        return self

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with the biases added."""
        return logits + bias_of(logits, history, self._groups)
