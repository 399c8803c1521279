"""What pasted counter-examples are made of: cases from plain values, and a check that runs on them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from decodekit.drafter import Drafter
from decodekit.errors import UnknownNameError, nearest
from decodekit.history import History
from decodekit.processor import CallContext, Processor
from decodekit.strategy import Strategy
from decodekit.testing import processor_subject, strategy_case
from decodekit.testing.drafter_subject import Verify
from decodekit.testing.strategy_models import KitModel, model_named

__all__ = ["drafter_case_of", "processor_case", "replay_values", "strategy_case_of"]


def processor_case(
    processor: Processor,
    *,
    logits: Sequence[Sequence[float]],
    dtype: str,
    tokens: Sequence[Sequence[int]],
    pads: Sequence[int],
    prompt_lengths: Sequence[int],
    eos_token_ids: Sequence[int] = (),
    max_new_tokens: int | None = None,
    vocab_size: int | None = None,
) -> processor_subject.Case:
    """One call of a processor: B rows of logits, and the history in the form of `History`.

    Args:
        processor: before `bind`.
        logits: B rows of V numbers.
        dtype: of the logits, e.g. ``"float64"``.
        tokens: B rows of ids; the first ``pads[r]`` columns of a row are padding.
        pads: B numbers.
        prompt_lengths: B numbers: how many of a row's tokens are its prompt.
        eos_token_ids: the EOS ids of the call.
        max_new_tokens: the most tokens that a row may get.
        vocab_size: V unless given.
    """
    width = len(logits[0]) if vocab_size is None else vocab_size
    context = CallContext(vocab_size=width, eos_token_ids=tuple(eos_token_ids), max_new_tokens=max_new_tokens)
    history = History(
        torch.tensor(tokens, dtype=torch.long).view(len(pads), -1),
        torch.tensor(pads, dtype=torch.long),
        torch.tensor(prompt_lengths, dtype=torch.long),
    )
    values = torch.tensor(logits, dtype=getattr(torch, dtype))
    return processor_subject.Case(processor, context, values, history)


def strategy_case_of(strategy: Strategy, *, model: Any, **fields: Any) -> strategy_case.Case:
    """One call of generate with a strategy.

    Args:
        strategy: the instance.
        model: one of the kit's, in the words of a report: ``"Markov of order 1, 2 tokens, seed 7"``, or any
            model of transformers.
        **fields: the other fields of a case: prompts, seeds, max_new_tokens, eos, pad, more_padding,
            processors, copies.
    """
    return strategy_case.Case(strategy=strategy, model=_model(model), **fields)


def drafter_case_of(drafter: Drafter, *, model: Any, length: int, **fields: Any) -> strategy_case.Case:
    """One call of generate with the kit's own strategy, which verifies what a drafter drafts.

    Args:
        drafter: the instance.
        model: as for `strategy_case_of`: what is drafted for.
        length: the most tokens that are asked for.
        **fields: as for `strategy_case_of`.
    """
    return strategy_case.Case(strategy=Verify(drafter, length), model=_model(model), **fields)


def _model(model: Any) -> KitModel:
    if isinstance(model, str):
        return model_named(model)
    return KitModel("the given model", model, model.config.get_text_config().vocab_size)


def replay_values(checks: Iterable[Any], subject: Any, key: str, values: Sequence[Any]) -> None:
    """Run one check on values that it drew once.

    Raises:
        BrokenPromiseError: the promise is still broken.
        UnknownNameError: there is no check of that id and title.
    """
    known = {item.key: item for item in checks}
    if key not in known:
        message = f"there is no check {key!r}.{nearest(key, known)}"
        raise UnknownNameError(message)
    left = list(values)
    known[key].body(subject, lambda strategy: left.pop(0))
