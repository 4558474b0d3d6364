"""From source code to tokens, and the counting model to beat."""
