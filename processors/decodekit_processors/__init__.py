"""The built-in processors of decodekit, one a file."""
