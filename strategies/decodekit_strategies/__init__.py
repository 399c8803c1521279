"""The built-in strategies of decodekit, one a file."""
