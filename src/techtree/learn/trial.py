"""One run of a model with some of the learner's files: a process that reads on standard input what to do."""

import json
import sys
from pathlib import Path

import numpy as np

from techtree.engines.numpy_engine import load_logits
from techtree.learn import mine
from techtree.tree.graph import load_tree


def main() -> None:
    """Write the scores, and beside them which technologies ran."""
    question = json.load(sys.stdin)
    tree = load_tree()
    mine.take(tree, {name: Path(file) for name, file in question["files"].items()})
    logits, _ = load_logits(Path(question["folder"]))
    scores = np.asarray(logits(question["ids"]))
    out = Path(question["out"])
    (out.parent / "told.json").write_text(json.dumps(mine.used(tree)), encoding="utf-8")
    np.save(out, scores)


if __name__ == "__main__":
    main()
