"""The tree's engine: the graph of technologies, the four unlock rules, certificates, the map.

Standard library only, so that `techtree map` answers at once and a learner needs nothing heavy.
"""
