"""A decoder in C for the processor that is there: decoder.c. Without a compiler PyTorch does its work."""
