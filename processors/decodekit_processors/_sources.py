"""The tokens that an encoder reads, for the processors that look at them."""

from decodekit import CallContext, History, ParameterError

__all__ = ["check_sources", "read_by_encoder"]


def check_sources(name: str, context: CallContext) -> None:
    """Raise `ParameterError` when the model has an encoder that reads no tokens."""
    if context.sources is not None and len(context.sources) == 0:
        message = f"{name} has no tokens to look at, because this model's encoder reads none: leave it out"
        raise ParameterError(message)


def read_by_encoder(history: History, context: CallContext | None, last: int) -> History:
    """A history whose prompts are what the encoder read; without an encoder, the history as it is.

    Args:
        history: of the rows.
        context: of the call, once it is known.
        last: how many of each row's last tokens follow there; -1 stands where a row has fewer.
    """
    if context is None or context.sources is None:
        return history
    copies = context.batch_size // len(context.sources)
    slots = range(len(history)) if history.slots is None else history.slots.tolist()
    sources = [context.sources[slot // copies] for slot in slots]
    ends = [history.recent(row, last) for row in range(len(history))]
    filled = [[-1] * (last - len(end)) + end for end in ends]
    made = History.of(sources, filled)
    device = history.tokens.device
    return History(made.tokens.to(device), made.pads.to(device), made.prompt_lengths.to(device))
