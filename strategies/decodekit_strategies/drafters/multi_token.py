"""The multi-token heads that a model was trained with."""

import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from decodekit import Batch, CallContext, Draft, Drafter, DrafterLaws, ParameterError, Pick, param
from transformers.modeling_layers import MtpModel

from decodekit_strategies.drafters._autoregressive import decode_drafts

__all__ = ["MultiToken"]

_READ: "weakref.WeakKeyDictionary[Any, tuple[Any, MtpModel]]" = weakref.WeakKeyDictionary()
"""The heads of each model, and what they were tied to; they go when their model goes."""


@attrs.frozen
class MultiToken(Drafter):
    """Each head of the model drafts one token more, from what the model said last.

    Head ``k`` reads what the head before it said (the first one, the model's last hidden states) beside the
    token that comes next, and says the ``k + 1``-th token of the draft. The heads are read from the model's
    own files at the first call, and kept with the model.

    Source: DeepSeek-AI (2024), DeepSeek-V3 technical report, arXiv 2412.19437, section 2.2; Gloeckle et al.
        (2024), arXiv 2404.19737.
    Range: model is transformers' ``MtpModel`` of the target; drafts of up to as many tokens as it has layers.
    Shape: one layer and the model's head a drafted token, for all rows at once; a cache of these layers, and
        the last hidden states [B, W, D] of the text.
    Law: reports q, the processed distribution of each token. The model stays as it is.
    Raises: ParameterError when the model has no such heads, or its files do not hold them; CapabilityError
        when they keep states that can't be taken back, or a call goes on from past_key_values.
    """

    NAME: ClassVar[str] = "multi_token"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)

    model: Any = param(
        None, help="The heads, as transformers' MtpModel; left out, those in the model's own files."
    )

    @property
    def heads(self) -> Any:
        """The heads, once they are bound."""
        return self.model

    @property
    def longest_draft(self) -> int | None:
        """A token for each head."""
        return None if self.model is None else len(self.model.layers)

    def bind(self, model: Any, context: CallContext) -> "MultiToken":
        """Read the heads, or take those that an earlier call has read."""
        return self if self.model is not None else attrs.evolve(self, model=_heads_of(model))

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """One token after another, each from the next head; the first step has nothing to begin with."""
        wanted = [min(most, len(self.model.layers)) for most in lengths]
        ahead = batch.ahead(max(wanted)) if any(wanted) else None
        if ahead is None:
            return Draft([[] for _ in batch.rows])
        return decode_drafts(batch, wanted, pick, 0.0, ahead.logits)


def _heads_of(model: Any) -> MtpModel:
    """The heads of a model, tied to its embeddings and its head as they are now.

    Raises:
        ParameterError: it has none, or they can't be read.
    """
    count = getattr(model.config.get_text_config(decoder=True), "num_mtp_layers", None)
    if not count:
        message = (
            f"the drafter 'multi_token' needs a model with multi-token heads, and {type(model).__name__} has "
            f"none (num_mtp_layers of its configuration is {count!r}): choose another drafter, e.g. "
            "prompt_lookup_num_tokens=10"
        )
        raise ParameterError(message)
    tied = (id(model.get_output_embeddings()), _device(model), model.dtype)
    if model not in _READ or _READ[model][0] != tied:
        _READ[model] = (tied, _read(model))
    return _READ[model][1]


def _device(model: Any) -> torch.device:
    """Where the last layer is, and the heads are to be."""
    device: torch.device = next(model.get_decoder().layers[-1].parameters()).device
    return device


def _read(model: Any) -> MtpModel:
    """The heads in the files of a model; random numbers stay as they were."""
    source = model.config.name_or_path
    try:
        if not source:
            message = "the model was not loaded from files"
            raise OSError(message)
        with torch.random.fork_rng():
            heads = MtpModel.from_pretrained(model, device_map={"": _device(model)})
    except (AttributeError, OSError, RuntimeError, TypeError, ValueError) as error:
        message = (
            f"the multi-token heads of {type(model).__name__} can't be read from {source!r}: {error}. Load "
            "the model from files that have them, or give them: drafter=('multi_token', {'model': "
            "<transformers' MtpModel>})"
        )
        raise ParameterError(message) from error
    if model.config.dtype != model.dtype:  # it was converted after it was loaded
        heads.layers.to(model.dtype)
    heads.layers.eval()  # and not all of it: embeddings and head are the model's
    return heads
