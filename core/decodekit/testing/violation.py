"""What a check raises."""

__all__ = ["BrokenPromiseError"]


class BrokenPromiseError(AssertionError):
    """In words, what went wrong on which input."""
