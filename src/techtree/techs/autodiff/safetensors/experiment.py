"""Measure what loading costs and risks: bytes read, programs run, flipped bits, and what BF16 keeps."""

import io
import os
import pickle
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.safetensors import load_file, save_file

N_TENSORS = 64
EXPONENTS = range(-37, 38)
"""Powers of ten at which numbers are stored in half the bits."""


class CountingFile(io.FileIO):
    """A file that counts the bytes that are read from it."""

    n_read = 0

    def read(self, size: int | None = -1):
        """Read, and count."""
        data = super().read(size)
        self.n_read += len(data or b"")
        return data

    def readinto(self, buffer):
        """Read into memory, and count."""
        n = super().readinto(buffer)
        self.n_read += n or 0
        return n


class Payload:
    """What a pickle may hold in the place of weights: a function, and what it shall be called with."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Write the same tensors in three ways and read some of them; flip bits; store numbers in 16 bits.

    Parameters
    ----------
    rng
        Draws the tensors.
    scale
        The share of the full size of the tensors, in (0, 1].

    Returns
    -------
    dict
        The bytes that are read for some of the tensors, of a pickle, an npz archive and a safetensors file
        (None where the system does not tell); the memory that loading takes with and without padding;
        whether loading a pickle ran a function; the outcomes of flipped bits; the relative error of numbers
        in BF16 and F16 for each power of ten (None where nothing is left).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        size = max(1 << 16, int(scale * (1 << 19)))
        tensors = {
            f"layers.{n}.weight": rng.normal(size=size // 4).astype(np.float32) for n in range(N_TENSORS)
        }
        counts = [1, 2, 4, 8, 16, 32, 64]
        read = _bytes_read(folder, tensors, counts)
        memory = _memory(folder, tensors)
        ran = _runs_a_function(folder)
        flips = _flip_bits(folder, rng)
    errors = [_half_errors(rng, exponent) for exponent in EXPONENTS]
    return {
        "tensor_bytes": size,
        "counts": counts,
        **read,
        **memory,
        "pickle_ran_a_function": ran,
        "flips": flips,
        "exponents": list(EXPONENTS),
        "bf16_error": [bf16 for bf16, _ in errors],
        "f16_error": [f16 for _, f16 in errors],
    }


def _bytes_read(folder: Path, tensors: dict[str, np.ndarray], counts: list[int]) -> dict:
    """Read the first so many tensors of each file."""
    (folder / "pickle").write_bytes(pickle.dumps(tensors))
    np.savez(folder / "archive.npz", **tensors)  # pyright: ignore[reportArgumentType]
    save_file(tensors, folder / "safetensors")
    names = list(tensors)
    pickled, archived, mapped = [], [], []
    for count in counts:
        raw = CountingFile(folder / "pickle")
        with io.BufferedReader(raw) as file:
            found = pickle.load(file)
            assert all(np.array_equal(found[name], tensors[name]) for name in names[:count])
        pickled.append(raw.n_read)
        raw = CountingFile(folder / "archive.npz")
        with io.BufferedReader(raw) as file, np.load(file) as found:
            assert all(np.array_equal(found[name], tensors[name]) for name in names[:count])
        archived.append(raw.n_read)
        found = load_file(folder / "safetensors")
        assert all(np.array_equal(found[name], tensors[name]) for name in names[:count])
        mapped.append(_resident_bytes(folder / "safetensors"))
        del found
    whole = (folder / "safetensors").stat().st_size
    header = whole - sum(each.nbytes for each in tensors.values())
    return {"pickle": pickled, "npz": archived, "safetensors": mapped, "header_bytes": header}


def _resident_bytes(path: Path) -> int | None:
    """Return how much of a mapped file has been brought into this process, where the system tells."""
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    total, is_ours = 0, False
    for line in lines:
        if "-" in line.split(" ", 1)[0]:  # the head of a mapping begins with its addresses
            is_ours = line.endswith(path.name) and str(path.parent) in line
        elif is_ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total or None


def _memory(folder: Path, tensors: dict[str, np.ndarray]) -> dict:
    """Load a file whose data begin at a multiple of 8, and one where they do not."""
    content = (folder / "safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    moved = folder / "moved"
    moved.write_bytes(
        (length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :]
    )
    del content

    def held(path: Path) -> int:
        tracemalloc.start()
        found = load_file(path)
        n_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found) == len(tensors)
        return n_bytes

    return {"held_aligned": held(folder / "safetensors"), "held_moved": held(moved)}


def _runs_a_function(folder: Path) -> bool:
    """Load a pickle that came as weights; tell whether the function in it was called."""
    target = folder / "made by a pickle"
    weights = pickle.dumps({"layers.0.weight": Payload(str(target))})
    assert not target.exists()
    pickle.loads(weights)
    return target.exists()


def _flip_bits(folder: Path, rng: np.random.Generator) -> dict[str, int]:
    """Flip each bit of a small file in turn; count what comes of it."""
    tensors = {
        "embed.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "norm": rng.normal(size=4).astype(np.float16),
        "steps": np.array(1000),
    }
    path = folder / "small"
    save_file(tensors, path, {"format": "np"})
    content = path.read_bytes()
    data_begin = 8 + int.from_bytes(content[:8], "little")
    outcomes = {
        "header, refused": 0,
        "header, other name or metadata": 0,
        "header, same": 0,
        "header, misread": 0,
        "data, unnoticed": 0,
        "data, refused": 0,
    }
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        part = "header" if bit // 8 < data_begin else "data"
        try:
            found = load_file(path)
        except ValueError:
            outcomes[f"{part}, refused"] += 1
            continue
        if part == "data":
            outcomes["data, unnoticed"] += 1
            continue
        kept = found.keys() & tensors.keys()
        is_right = all(
            found[name].dtype == tensors[name].dtype and np.array_equal(found[name], tensors[name])
            for name in kept
        )
        if not is_right:
            outcomes["header, misread"] += 1
        elif len(kept) == len(tensors) and b'"__metadata__":{"format":"np"}' in flipped:
            outcomes["header, same"] += 1
        else:
            outcomes["header, other name or metadata"] += 1
    return outcomes


def _half_errors(rng: np.random.Generator, exponent: int) -> tuple[float | None, float | None]:
    """Return the largest relative error of random numbers of one size, rounded to BF16 and to F16."""
    x = (rng.uniform(1, 10, size=200) * 10.0**exponent).astype(np.float32)
    bits = x.view(np.uint32).astype(np.uint64) + 0x8000  # to the nearest: half of the last bit that stays
    bf16 = ((bits >> 16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        f16 = x.astype(np.float16).astype(np.float32)
    return _largest_error(bf16, x), _largest_error(f16, x)


def _largest_error(got: np.ndarray, x: np.ndarray) -> float | None:
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = float((np.abs(got.astype(np.float64) - wide) / wide).max())
    return error if error < 1 else None  # at 1 everything is lost, to 0 or infinity


def plot(numbers: dict):
    """Draw the bytes read by the number of tensors, the fate of flipped bits, and the error of 16 bits."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    for key, label, colour in (
        ("pickle", "pickle", "C1"),
        ("npz", "npz", "C2"),
        ("safetensors", "safetensors", "C0"),
    ):
        megabytes = [np.nan if n is None else n / 1e6 for n in numbers[key]]
        left.plot(numbers["counts"], megabytes, marker=".", color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel=f"tensors used, of {N_TENSORS}", ylabel="megabytes read")
    left.set_xticks(numbers["counts"], [str(n) for n in numbers["counts"]])
    left.minorticks_off()
    left.legend(loc="lower right")
    flips = numbers["flips"]
    parts = (
        ("refused", "C0"),
        ("other name or metadata", "C2"),
        ("unnoticed", "C1"),
    )
    bottoms = np.zeros(2)
    totals = [sum(n for what, n in flips.items() if what.startswith(part)) for part in ("header", "data")]
    for what, colour in parts:
        shares = [
            100 * flips.get(f"{part}, {what}", 0) / total
            for part, total in zip(("header", "data"), totals, strict=True)
        ]
        middle.bar(["header", "data"], shares, bottom=bottoms, color=colour, label=what, width=0.6)
        bottoms += shares
    middle.set(ylabel="% of the flipped bits", xlabel="where one bit is flipped", ylim=(0, 135))
    middle.set_yticks([0, 25, 50, 75, 100])
    middle.legend(loc="upper center")
    for key, label, colour in (("bf16_error", "BF16", "C0"), ("f16_error", "F16", "C1")):
        errors = [np.nan if error is None else error for error in numbers[key]]
        right.plot(numbers["exponents"], errors, color=colour, label=label)
    right.set(
        yscale="log", xlabel="size of the numbers, power of ten", ylabel="relative error (no line: lost)"
    )
    right.legend(loc="upper right")
    return figure


def claim(numbers: dict) -> None:
    """README.md: all of a pickle, what is used of a map; no bit flip misread; 2^-8 at every size."""
    whole = numbers["tensor_bytes"] * N_TENSORS
    assert set(numbers["pickle"]) == {numbers["pickle"][0]}
    assert numbers["pickle"][0] > whole
    assert numbers["npz"][0] < 0.03 * whole
    if None not in numbers["safetensors"]:
        assert numbers["safetensors"][0] < 0.1 * whole
        assert numbers["safetensors"] == sorted(numbers["safetensors"])
        assert numbers["safetensors"][-1] >= whole
    assert 80 < numbers["header_bytes"] / N_TENSORS < 90
    assert numbers["held_aligned"] < 100_000
    assert numbers["held_moved"] > whole
    assert numbers["pickle_ran_a_function"]
    flips = numbers["flips"]
    assert (flips["header, misread"], flips["header, same"], flips["data, refused"]) == (0, 0, 0)
    n_header = sum(n for what, n in flips.items() if what.startswith("header"))
    assert 0.87 < flips["header, refused"] / n_header < 0.90
    assert flips["data, unnoticed"] > 0
    assert all(error < 2.0**-8 for error in numbers["bf16_error"])
    f16 = dict(zip(numbers["exponents"], numbers["f16_error"], strict=True))
    assert all(f16[exponent] < 2.0**-11 for exponent in range(-4, 4))
    assert all(f16[exponent] is None for exponent in numbers["exponents"] if not -8 <= exponent <= 3)
