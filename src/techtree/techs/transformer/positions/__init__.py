"""Where a token stands, as a vector: computed from waves, or learned."""

from techtree.techs.transformer.positions.positions import LearnedPositions, sinusoidal

__all__ = ["LearnedPositions", "sinusoidal"]
