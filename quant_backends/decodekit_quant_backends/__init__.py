"""The built-in quant backends of decodekit, one a file."""
