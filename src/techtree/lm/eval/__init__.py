"""What a model is worth, in numbers on text that it has not seen."""
