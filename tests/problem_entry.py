"""A line of a file of problems, in the form of HumanEval's."""

EXERCISE = {
    "task_id": "T/0",
    "prompt": "def one():\n",
    "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f() == 1\n",
    "entry_point": "one",
}
