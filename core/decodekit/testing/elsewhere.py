"""Numbers of the list of properties that have no check of their own, and why."""

__all__ = ["ELSEWHERE"]

ELSEWHERE: dict[str, str] = {
    "S26": "Unbiased weights. No strategy gives its rows weights (of importance sampling, or of sequential "
    "Monte Carlo): `Row` has none, so there is nothing whose mean could be compared. The check comes with "
    "the first strategy that has them.",
    "S29": "Honest q. What a draft was drawn from is reported by the drafter: it is D4, for every place of a "
    "draft.",
    "S32": "Tree as chain. A model is shown drafts that are chains, one a row; there is no attention over "
    "trees. That each position of a chain has the logits of a plain forward pass is S9.",
}
"""Number -> what it is about, and where it is or why it is not there."""
