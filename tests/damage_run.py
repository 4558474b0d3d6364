"""Commands on damaged folders, each in a process of its own under limits of memory and time.

Each line of standard input is a case, {"words": [...], "cwd": "..."}. PyTorch is imported once; each case is
a fork. For each, a line of JSON goes to standard output: exit code (negative: a signal), output and errors.
"""

import json
import os
import resource
import signal
import sys
import tempfile

MEMORY_BYTES = 4 << 30
CASE_S = 20


def main() -> None:
    """Run the cases that come."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import torch

    torch.set_num_threads(1)
    import techtree.engines.torch_engine
    import techtree.lm.eval.bits_per_byte
    import techtree.lm.formats.gguf
    import techtree.lm.formats.huggingface.copying
    import techtree.lm.pipeline.data_folder  # noqa: F401 (what the commands import)

    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(run(case["words"], case["cwd"])), flush=True)


def run(words: list[str], cwd: str) -> dict[str, object]:
    """Run one command."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                signal.alarm(CASE_S)  # whose signal ends the process
                os.chdir(cwd)
                for mine, theirs in ((out, 1), (err, 2)):
                    os.dup2(mine.fileno(), theirs)
                from techtree.cli.main import main as techtree

                code = techtree(words)
                sys.stdout.flush()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 71
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", errors="replace"))
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    main()
