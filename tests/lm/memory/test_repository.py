"""A repository on the disk, whose files come, change and go."""

import os
import subprocess
import threading

import numpy as np
import pytest

from techtree.lm.memory import repository as module
from techtree.lm.memory.files import MAX_FILE_BYTES, files_of, repository_of, text_of
from techtree.lm.memory.index import LONGEST_MATCH
from techtree.lm.memory.repository import Repository


def put(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    stamp = path.stat().st_mtime_ns + 1_000_000 * (len(text) + 1)
    os.utime(path, ns=(stamp, stamp))


def git(root, *words):
    subprocess.run(["git", "-C", root, *words], check=True, capture_output=True)


def after(repository, tiny_tokenizer, text):
    """Return the few tokens that most often followed a text, as text."""
    ids = tiny_tokenizer.encode(text)
    for _ in range(3):
        match = repository.match(ids)
        if match is None:
            break
        ids.append(int(match.followers[0]))
    return tiny_tokenizer.decode(ids).removeprefix(text)


# ---- which files


def test_git_says_which_files(tmp_path):
    git(tmp_path, "init", "-q")
    put(tmp_path, ".gitignore", "ignored.py\n/build/\n")
    for name in ("known.py", "new.py", "ignored.py", "build/made.py", "sub/dir/x.rs", "Makefile", "data.bin"):
        put(tmp_path, name, "text\n")
    git(tmp_path, "add", "known.py")
    os.symlink(tmp_path / "known.py", tmp_path / "link.py")
    assert files_of(tmp_path) == ["Makefile", "known.py", "new.py", "sub/dir/x.rs"]
    assert repository_of(tmp_path / "sub" / "dir" / "x.rs") == tmp_path.resolve()


def test_a_configuration_that_would_run_a_program_does_not(tmp_path):
    git(tmp_path, "init", "-q")
    put(tmp_path, "a.py", "text\n")
    put(tmp_path, "evil.sh", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    os.chmod(tmp_path / "evil.sh", 0o755)
    git(tmp_path, "config", "core.fsmonitor", str(tmp_path / "evil.sh"))
    assert "a.py" in files_of(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_elsewhere_all_but_hidden_and_made_ones(tmp_path):
    for name in ("a.py", "b/c.js", ".hidden/d.py", "node_modules/e.js", "__pycache__/f.py", ".g.py"):
        put(tmp_path, name, "text\n")
    assert files_of(tmp_path) == ["a.py", "b/c.js"]


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.local",
        "id_rsa",
        "key.pem",
        "secrets.yaml",
        "db_password.txt",
        ".npmrc",
        "prod.tfvars",
        "secrets/app.py",
        "my-credentials.json",
    ],
)
def test_files_with_the_names_of_secrets_stay_out(tmp_path, name):
    git(tmp_path, "init", "-q")
    put(tmp_path, name, "text\n")
    assert files_of(tmp_path) == []


@pytest.mark.parametrize(
    "secret",
    [
        *("-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----", "AKIA" + "A1" * 8),
        *("ghp_" + "aB3" * 12, "sk-" + "x" * 40, "xoxb-1234567890-abc", "hf_" + "A" * 34, "AIza" + "b" * 35),
    ],
)
def test_files_that_hold_a_secret_stay_out(tmp_path, secret):
    put(tmp_path, "a.py", f"x = 1\nTOKEN = '{secret}'\n")
    assert text_of(tmp_path / "a.py") is None
    put(tmp_path, "a.py", "x = 1\n# AKIA is the beginning of a key; ghp_ too\n")
    assert text_of(tmp_path / "a.py") == "x = 1\n# AKIA is the beginning of a key; ghp_ too\n"


def test_what_is_no_text_of_a_person_stays_out(tmp_path):
    put(tmp_path, "a.py", "x = 1\n" * MAX_FILE_BYTES)
    assert text_of(tmp_path / "a.py") is None
    put(tmp_path, "a.py", "# Do not edit: made by a program\nx = 1\n")
    assert text_of(tmp_path / "a.py") is None
    (tmp_path / "a.py").write_bytes(b"\xff\xfe\x00")
    assert text_of(tmp_path / "a.py") is None
    assert text_of(tmp_path / "gone.py") is None
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbfx\r\ny\r")
    assert text_of(tmp_path / "a.py") == "x\ny\n"


# ---- changes


def test_changes_are_followed(tmp_path, tiny_tokenizer):
    put(tmp_path, "a.py", "alpha beta one\n")
    put(tmp_path, "b.py", "gamma delta two\n")
    repository = Repository(tmp_path, tiny_tokenizer)
    assert repository.n_files == 2
    assert after(repository, tiny_tokenizer, "alpha beta").startswith(" o")
    put(tmp_path, "a.py", "alpha beta three\n")
    put(tmp_path, "c.py", "epsilon zeta four\n")
    (tmp_path / "b.py").unlink()
    repository.refresh()
    assert repository.n_files == 2
    assert after(repository, tiny_tokenizer, "alpha beta").startswith(" t")
    assert after(repository, tiny_tokenizer, "epsilon zeta").startswith(" f")
    found = repository.match(tiny_tokenizer.encode("gamma delta"))
    assert found is None or found.n_tokens < len(tiny_tokenizer.encode("gamma delta"))
    (tmp_path / "c.py").unlink()
    repository.refresh()
    assert repository.n_files == 1
    put(tmp_path, "b.py", "gamma delta two\n")
    repository.refresh()
    assert after(repository, tiny_tokenizer, "gamma delta").startswith(" t")


def test_many_changes_make_the_index_anew(tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MIN_TOKENS_ANEW", 5)
    put(tmp_path, "a.py", "alpha beta one\n")
    repository = Repository(tmp_path, tiny_tokenizer)
    for n in range(30):
        put(tmp_path, f"f{n}.py", f"word{n} comes before end{n}\n")
        repository.refresh()
        assert repository.n_files == n + 2
        assert after(repository, tiny_tokenizer, f"word{n} comes before").startswith(" e")
        assert after(repository, tiny_tokenizer, "alpha beta").startswith(" o")


def test_the_index_is_kept_and_a_damaged_one_made_anew(tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MIN_TOKENS_ANEW", 1)
    root, kept = tmp_path / "root", tmp_path / "kept"
    put(root, "a.py", "alpha beta one\n")
    Repository(root, tiny_tokenizer, kept)
    (folder,) = kept.iterdir()
    monkeypatch.setattr(module, "text_of", lambda file: pytest.fail("nothing changed"))
    again = Repository(root, tiny_tokenizer, kept)
    assert after(again, tiny_tokenizer, "alpha beta").startswith(" o")
    monkeypatch.undo()
    for damage in (b"", b"{", b'{"a.py": 3}', b'{"x": [1, 2], "y": [3, 4]}'):
        (folder / module.LIST).write_bytes(damage)
        assert after(Repository(root, tiny_tokenizer, kept), tiny_tokenizer, "alpha beta").startswith(" o")
    monkeypatch.setattr(module, "MIN_TOKENS_ANEW", 1)
    for name in ("tokens.npy", "places.npy"):
        Repository(root, tiny_tokenizer, kept)
        np.save(folder / name, np.zeros(99, np.int32))
        assert after(Repository(root, tiny_tokenizer, kept), tiny_tokenizer, "alpha beta").startswith(" o")
    assert [path.name for path in kept.iterdir()] == [folder.name]


def test_the_file_that_is_edited_does_not_count(tmp_path, tiny_tokenizer):
    lines = [f"value_{n} = compute_of_them_all(first_{chr(97 + n % 26)}, second)\n" for n in range(60)]
    put(tmp_path, "edited.py", "".join(lines))
    put(tmp_path, "other.py", "value_30 = something_else\n")
    repository = Repository(tmp_path, tiny_tokenizer)
    assert after(repository, tiny_tokenizer, "".join(lines[20:30]) + "value_30 =").startswith(" compute"[:2])
    before, behind = "".join(lines[:30]), "".join(lines[31:])
    assert len(tiny_tokenizer.encode(before)) > LONGEST_MATCH
    repository.edit_like([tiny_tokenizer.encode(before), tiny_tokenizer.encode(behind)])
    assert after(repository, tiny_tokenizer, before + "value_30 =").startswith(" s")
    repository.edit_like([tiny_tokenizer.encode("nothing that stands anywhere " * 20), []])
    assert after(repository, tiny_tokenizer, "".join(lines[20:30]) + "value_30 =").startswith(" c")


def test_a_thread_follows_until_it_is_told_to_stop(tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MIN_PAUSE_S", 0.01)
    put(tmp_path, "a.py", "alpha beta one\n")
    repository = Repository(tmp_path, tiny_tokenizer)
    stopping = threading.Event()
    thread = threading.Thread(target=repository.follow, args=(stopping,))
    thread.start()
    put(tmp_path, "b.py", "gamma delta two\n")
    deadline = threading.Event()
    for _ in range(2000):
        if repository.n_files == 2:
            break
        deadline.wait(0.01)
    stopping.set()
    thread.join(20)
    assert repository.n_files == 2
    assert not thread.is_alive()
