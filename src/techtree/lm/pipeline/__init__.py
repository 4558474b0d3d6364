"""From source code to a trained and measured model, under one dial: time."""
