"""llama.cpp in this process, by its server on a free port: `pip install xllamacpp`."""

import importlib.util
import json
import os
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IS_THERE = importlib.util.find_spec("xllamacpp") is not None
ADVICE = "pip install xllamacpp"


@dataclass(frozen=True)
class Written:
    """A greedy text, and at how many tokens per second llama.cpp says that it read and wrote."""

    ids: list[int]
    text: str
    decode: float
    prefill: float


class Llama:
    """A model in llama.cpp.

    Parameters
    ----------
    path
        A GGUF file.
    n_context
        The most tokens of prompt and text together.
    n_threads
        For prompts and texts.
    """

    def __init__(self, path: Path, n_context: int, n_threads: int):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it tells much
        import xllamacpp

        package: Any = xllamacpp  # its names come from C++
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        params = package.CommonParams()
        params.model.path, params.n_ctx, params.port = str(path), n_context, port
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
        self._server = package.Server(params)
        self._url = f"http://127.0.0.1:{port}"

    def write(self, prompt: str | Sequence[int], n_tokens: int, ignore_eos: bool = True) -> Written:
        """Continue a prompt greedily, without what it remembers of others."""
        question = {"prompt": prompt, "n_predict": n_tokens, "ignore_eos": ignore_eos, "return_tokens": True}
        said = self._ask("/completion", question | {"temperature": 0, "cache_prompt": False})
        rates = said["timings"]
        return Written(
            said["tokens"], said["content"], rates["predicted_per_second"], rates["prompt_per_second"]
        )

    def infill(self, question: Mapping[str, object]) -> str:
        """Answer a question to ``/infill``."""
        return self._ask("/infill", question)["content"]

    def _ask(self, route: str, question: Mapping[str, object]) -> dict:
        body = json.dumps(question).encode()
        request = urllib.request.Request(self._url + route, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
