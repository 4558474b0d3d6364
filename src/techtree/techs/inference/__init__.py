"""Using a trained model: choosing tokens, remembering what was computed, fewer bits, many requests."""
