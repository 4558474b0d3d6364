"""Token masks from a grammar or a JSON schema, so that every output parses."""

from techtree.techs.inference.constrained.constrained import (
    Automaton,
    TokenTable,
    compile_grammar,
    constrained_generate,
    json_grammar,
    token_masks,
)

__all__ = [
    "Automaton",
    "TokenTable",
    "compile_grammar",
    "constrained_generate",
    "json_grammar",
    "token_masks",
]
