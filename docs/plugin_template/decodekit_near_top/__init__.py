"""The processor near_top for decodekit."""
