"""From a language model to an assistant: fill-in-the-middle, instructions, tools, an agent in an editor."""
