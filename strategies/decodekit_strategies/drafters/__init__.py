"""The built-in drafters of decodekit, one a file."""
