"""The decoding strategies that are tried on every backend's model."""

STRATEGIES = ["greedy", "sample", "beam", ("assisted", {"prompt_lookup_num_tokens": 3})]
