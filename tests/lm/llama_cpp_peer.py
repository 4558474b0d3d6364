"""llama.cpp in a process of its own, so that neither its prints nor its assertions reach the tests.

`LlamaCpp` sends one JSON line for each question and reads one line for the answer; run as a program, this
module answers them. All computing is in one thread, with keys and values in float32.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

WITHOUT_LLAMA_CPP = importlib.util.find_spec("llama_cpp") is None
MARKS = [
    pytest.mark.peer,
    pytest.mark.skipif(
        WITHOUT_LLAMA_CPP, reason="needs llama.cpp: pip install llama-cpp-python (a compiler, some minutes)"
    ),
]
"""For a whole module, as its `pytestmark`."""

T = TypeVar("T", bound=Callable)


def needs_llama_cpp(test: T) -> T:
    """Mark a single test."""
    for mark in MARKS:
        test = mark(test)
    return test


class LlamaCpp:
    """llama.cpp with the model that was loaded last."""

    def __init__(self) -> None:
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages
        )

    def load(self, path: Path, *, n_ctx: int = 128) -> None:
        """Load a file, with room for so many tokens."""
        self._ask("load", path=str(path), n_ctx=n_ctx)

    def logits(self, ids: Sequence[int]) -> list[list[float]]:
        """Return the logits after each of the tokens."""
        return self._ask("logits", ids=list(ids))

    def greedy(self, ids: Sequence[int], n_tokens: int) -> list[int]:
        """Return the most probable tokens after others, computed one by one."""
        return self._ask("greedy", ids=list(ids), n_tokens=n_tokens)

    def encode(
        self, texts: Sequence[str], *, parse_special: bool = False, add_bos: bool = False
    ) -> list[list[int]]:
        """Return the ids of each text."""
        return self._ask("encode", texts=list(texts), parse_special=parse_special, add_bos=add_bos)

    def decode(self, texts: Sequence[Sequence[int]], *, special: bool = True) -> list[bytes]:
        """Return the bytes of each list of ids, by `llama_detokenize`."""
        return [
            bytes.fromhex(text)
            for text in self._ask("decode", texts=[list(ids) for ids in texts], special=special)
        ]

    def pieces(self, ids: Sequence[int], *, special: bool = True) -> list[bytes]:
        """Return the bytes of each id, as llama.cpp's programs write them."""
        return [bytes.fromhex(piece) for piece in self._ask("pieces", ids=list(ids), special=special)]

    def properties(self) -> dict[str, Any]:
        """Return what llama.cpp made of the metadata."""
        return self._ask("properties")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)
        self._messages.close()

    def _ask(self, name: str, **arguments: Any) -> Any:
        question = json.dumps({"name": name, "arguments": arguments})
        try:
            self._process.stdin.write(question.encode("utf-8") + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            self._messages.seek(0)
            raise RuntimeError(
                f"llama.cpp ended at {name}: {self._messages.read()[-2000:].decode(errors='replace')}"
            )
        result = json.loads(answer)
        if "error" in result:
            raise RuntimeError(f"llama.cpp refused: {result['error']}")
        return result["answer"]


# What runs in the other process ---------------------------------------------------------------------------


class _Server:
    """The questions, by name."""

    def __init__(self) -> None:
        self.llama: Any = None

    def load(self, path: str, n_ctx: int) -> None:
        from llama_cpp import GGML_TYPE_F32, Llama

        if self.llama is not None:
            self.llama.close()
        self.llama = Llama(
            path,
            n_ctx=n_ctx,
            logits_all=True,
            n_threads=1,
            n_threads_batch=1,
            type_k=GGML_TYPE_F32,
            type_v=GGML_TYPE_F32,
            flash_attn=False,
            use_mmap=False,
            verbose=True,
        )

    def logits(self, ids: list[int]) -> list[list[float]]:
        self.llama.reset()
        self.llama.eval(ids)
        return self.llama.scores[: len(ids)].tolist()

    def greedy(self, ids: list[int], n_tokens: int) -> list[int]:
        self.llama.reset()
        found: list[int] = []
        pending = ids
        for _ in range(n_tokens):
            self.llama.eval(pending)
            found.append(int(self.llama.scores[self.llama.n_tokens - 1].argmax()))
            pending = found[-1:]
        return found

    def encode(self, texts: list[str], parse_special: bool, add_bos: bool) -> list[list[int]]:
        return [
            self.llama.tokenize(text.encode("utf-8"), add_bos=add_bos, special=parse_special)
            for text in texts
        ]

    def decode(self, texts: list[list[int]], special: bool) -> list[str]:
        import ctypes

        import llama_cpp

        vocab = llama_cpp.llama_model_get_vocab(self.llama.model)
        found = []
        for ids in texts:
            tokens = (llama_cpp.llama_token * len(ids))(*ids)
            size = 0
            while True:
                buffer = ctypes.create_string_buffer(size)
                n_bytes = llama_cpp.llama_detokenize(vocab, tokens, len(ids), buffer, size, False, special)
                if n_bytes >= 0:
                    break
                size = -n_bytes  # what it needs
            found.append(buffer.raw[:n_bytes].hex())
        return found

    def pieces(self, ids: list[int], special: bool) -> list[str]:
        import ctypes

        import llama_cpp

        vocab = llama_cpp.llama_model_get_vocab(self.llama.model)
        found = []
        for token in ids:
            buffer = ctypes.create_string_buffer(1024)
            n_bytes = llama_cpp.llama_token_to_piece(vocab, token, buffer, 1024, 0, special)
            assert n_bytes >= 0
            found.append(buffer.raw[:n_bytes].hex())
        return found

    def properties(self) -> dict[str, Any]:
        import llama_cpp

        vocab = llama_cpp.llama_model_get_vocab(self.llama.model)
        names = ("bos", "eos", "eot", "pad", "fim_pre", "fim_suf", "fim_mid", "fim_sep")
        found = {name: getattr(llama_cpp, f"llama_vocab_{name}")(vocab) for name in names}
        n_tokens = llama_cpp.llama_vocab_n_tokens(vocab)
        return found | {
            "n_tokens": n_tokens,
            "adds_bos": llama_cpp.llama_vocab_get_add_bos(vocab),
            "ends": [i for i in range(n_tokens) if llama_cpp.llama_vocab_is_eog(vocab, i)],
            "control": [i for i in range(n_tokens) if llama_cpp.llama_vocab_is_control(vocab, i)],
        }


def serve() -> None:
    """Answer until the questions end; whatever llama.cpp prints goes to the error stream."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    server = _Server()
    for line in sys.stdin.buffer:
        question = json.loads(line)
        try:
            answer = {"answer": getattr(server, question["name"])(**question["arguments"])}
        except Exception as error:
            answer = {"error": repr(error)}
        answers.write(json.dumps(answer).encode("utf-8") + b"\n")


if __name__ == "__main__":
    serve()
