"""The ledger's memory follows what is committed."""

import torch
from decodekit.ledger import ROOM, Ledger


def test_a_limit_that_is_never_reached_costs_no_memory():
    ledger = Ledger([[1, 2]], 0, 10**15, torch.device("cpu"))
    ledger.append([[3]])
    assert ledger.history.row(0) == [1, 2, 3]


def test_rows_outgrow_the_first_memory():
    ledger = Ledger([[1], [2, 3]], 0, 10**15, torch.device("cpu"))
    tokens = list(range(ROOM + 7))
    for token in tokens:
        ledger.append([[token], [token + 1]])
    ledger.append([[5, 6], []])
    assert ledger.history.row(0) == [1, *tokens, 5, 6]
    assert ledger.history.row(1) == [2, 3, *(token + 1 for token in tokens)]
