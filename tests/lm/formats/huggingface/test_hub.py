"""Pulling a model from a hub on this machine, whose connections break."""

import errno
import json
import shutil
import socket
from collections import namedtuple

import pytest
import torch

from lm.families import FAMILIES, random_model
from lm.formats.huggingface.fake_hub import COMMIT, FakeHub, etag_of
from techtree.errors import InputError
from techtree.lm.formats.huggingface import hub as pulling
from techtree.lm.formats.huggingface import save_pretrained
from techtree.lm.formats.huggingface.hub import pull

NAME = "somebody/tiny"


@pytest.fixture(scope="module")
def model():
    return random_model(FAMILIES["qwen3"])


@pytest.fixture(scope="module")
def files(model, tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(folder, model, tiny_tokenizer)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = ["pytorch_model.bin", "modeling.py", "README.md", "../../evil.json", "onnx/model.onnx"]
    others += ["consolidated.safetensors", "../model-00001-of-00002.safetensors"]
    return found | dict.fromkeys(others, b"never asked for") | {"LICENSE": b"MIT"}


@pytest.fixture
def hub(files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda s: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # 10 MB at a time otherwise
    served = FakeHub(NAME, dict(files))
    yield served
    served.close()


def asked_for(hub):
    """The files whose contents were sent, in order."""
    paths = [path for command, path, _ in hub.requests if command == "GET" and "/resolve/" in path]
    return [path.rpartition("/")[2] for path in paths]


def same(found, model):
    return all(torch.equal(found.state_dict()[name], p) for name, p in model.state_dict().items())


def test_a_model_is_pulled(hub, model, files, tmp_path):
    said = []
    found = pull(NAME, tmp_path / "out", endpoint=hub.url, say=said.append)
    assert same(found, model)
    have = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert json.loads(have.pop("pulled.json")) == {"repository": NAME, "commit": COMMIT}
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"}
    assert have == {name: files[name] for name in wanted | {"model.safetensors"}}
    assert asked_for(hub)[-1] == "model.safetensors"
    assert set(asked_for(hub)) == have.keys()
    assert [line.split()[0] for line in said] == asked_for(hub)
    assert not (tmp_path / "evil.json").exists()


def test_a_second_call_downloads_nothing(hub, model, tmp_path):
    pull(NAME, tmp_path, endpoint=hub.url)
    hub.requests.clear()
    assert same(pull(NAME, tmp_path, "main", endpoint=hub.url), model)
    assert asked_for(hub) == []


def test_several_files_come_with_their_index_last(hub, model, tiny_tokenizer, tmp_path):
    save_pretrained(tmp_path / "sharded", model, tiny_tokenizer, max_shard_bytes=50_000)
    hub.files = {path.name: path.read_bytes() for path in (tmp_path / "sharded").iterdir()}
    assert same(pull(NAME, tmp_path / "out", endpoint=hub.url), model)
    assert asked_for(hub)[-1] == "model.safetensors.index.json"
    assert len([name for name in asked_for(hub) if name.startswith("model-")]) > 2


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_broken_connection_goes_on_where_it_broke(ignores_ranges, hub, model, tmp_path):
    name = "model.safetensors"
    hub.break_at[name] = 100_000
    with pytest.raises(InputError, match=r"the connection broke \(.*503.*start the same command again"):
        pull(NAME, tmp_path, endpoint=hub.url)
    assert not (tmp_path / name).exists()
    hub.break_at.clear()
    hub.requests.clear()
    hub.ignores_ranges = ignores_ranges
    said = []
    assert same(pull(NAME, tmp_path, endpoint=hub.url, say=said.append), model)
    assert asked_for(hub) == [name]
    assert hub.requests[-1] == ("GET", f"/{NAME}/resolve/{COMMIT}/{name}", "bytes=100000-")
    assert said == [f"{name}  0.2 MB, 0.1 MB of it here"]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_was_damaged_on_its_way_is_dropped(hub, model, tmp_path):
    name = "model.safetensors"
    hub.break_at[name] = 100_000
    with pytest.raises(InputError):
        pull(NAME, tmp_path, endpoint=hub.url)
    (part,) = tmp_path.glob(".model.safetensors.*.part")
    part.write_bytes(bytes(100_000))
    hub.break_at.clear()
    with pytest.raises(InputError, match=r"model\.safetensors was damaged on its way: start the same"):
        pull(NAME, tmp_path, endpoint=hub.url)
    assert same(pull(NAME, tmp_path, endpoint=hub.url), model)


def test_a_new_version_of_a_half_fetched_file_is_fetched_from_its_start(hub, tiny_tokenizer, tmp_path):
    name = "model.safetensors"
    hub.break_at[name] = 100_000
    with pytest.raises(InputError):
        pull(NAME, tmp_path / "out", endpoint=hub.url)
    other = random_model(FAMILIES["qwen3"], seed=7)
    save_pretrained(tmp_path / "new", other, tiny_tokenizer)
    hub.files[name] = (tmp_path / "new" / name).read_bytes()
    hub.break_at.clear()
    assert same(pull(NAME, tmp_path / "out", endpoint=hub.url), other)
    assert hub.requests[-1][2] is None
    assert list((tmp_path / "out").glob(".*")) == []


def test_a_changed_file_is_fetched_again(hub, files, tmp_path):
    pull(NAME, tmp_path, endpoint=hub.url)
    (tmp_path / "generation_config.json").write_text("{}")
    hub.files["LICENSE"] = b"Another one"
    hub.requests.clear()
    pull(NAME, tmp_path, endpoint=hub.url)
    assert sorted(asked_for(hub)) == ["LICENSE", "generation_config.json"]
    assert (tmp_path / "generation_config.json").read_bytes() == files["generation_config.json"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ((404, "RepoNotFound"), "the hub has no model 'somebody/tiny', or keeps it private: .*hf auth login"),
        ((401, "RepoNotFound"), "the hub has no model 'somebody/tiny'"),
        (
            (403, "GatedRepo"),
            "for those who accepted its terms: do so at https://huggingface.co/somebody/tiny",
        ),
        ((404, "RevisionNotFound"), "has no revision 'v2': use a branch"),
        ((500, ""), r"the hub cannot be reached, or the connection broke \(.*500"),
    ],
)
def test_what_the_hub_refuses_is_explained(error, message, hub, tmp_path):
    hub.error = error
    with pytest.raises(InputError, match=message) as raised:
        pull(NAME, tmp_path / "out", "v2", endpoint=hub.url)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("revision", ["\udcff", "v1\ud800", "\udc80main"])
def test_a_revision_that_is_no_text(hub, tmp_path, revision):
    with pytest.raises(InputError, match="a revision must be"):
        pull("somebody/tiny", tmp_path / "model", revision)


def test_an_unknown_revision(hub, tmp_path):
    with pytest.raises(InputError, match="somebody/tiny has no revision 'dev'"):
        pull(NAME, tmp_path / "out", "dev", endpoint=hub.url)


@pytest.mark.parametrize("name", ["a/b/c", "a b", "-x", "x" * 200, "../x"])
def test_what_is_no_name_is_refused(name, hub, tmp_path):
    with pytest.raises(InputError, match="a model's name must be OWNER/NAME"):
        pull(name, tmp_path / "out", endpoint=hub.url)
    assert hub.requests == []


def test_without_a_connection(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(InputError, match=r"the hub cannot be reached, .*Connection refused"):
        pull(NAME, tmp_path / "out", endpoint=url)


def test_offline_mode_is_respected(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids"):
        pull(NAME, tmp_path / "out", endpoint=hub.url)


@pytest.mark.parametrize("left", ["pytorch_model.bin", "nothing"])
def test_a_model_without_safetensors_is_refused(left, hub, tmp_path):
    names = {"config.json", "tokenizer.json", left}
    hub.files = {name: data for name, data in hub.files.items() if name in names}
    with pytest.raises(InputError, match=r"hold its weights as model\.safetensors; it has (pytorch|none)"):
        pull(NAME, tmp_path / "out", endpoint=hub.url)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_an_incomplete_model_is_refused(missing, hub, tmp_path):
    del hub.files[missing]
    with pytest.raises(InputError, match=f"somebody/tiny must hold a {missing}"):
        pull(NAME, tmp_path / "out", endpoint=hub.url)


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", b'{"model_type": "gemma"}'), ("tokenizer.json", b"{}")]
)
def test_what_cannot_be_read_is_refused_before_its_weights_are_on_the_way(name, content, hub, tmp_path):
    hub.files[name] = content
    with pytest.raises(InputError, match=name):
        pull(NAME, tmp_path, endpoint=hub.url)
    assert "model.safetensors" not in asked_for(hub)


def test_weights_of_another_shape_are_refused(hub, tmp_path):
    two, three = b'"num_hidden_layers": 2', b'"num_hidden_layers": 3'
    hub.files["config.json"] = hub.files["config.json"].replace(two, three)
    with pytest.raises(InputError, match="lacks tensor"):
        pull(NAME, tmp_path, endpoint=hub.url)


def test_another_folder_is_not_overwritten(hub, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else: choose another --out"):
        pull(NAME, tmp_path, endpoint=hub.url)
    (tmp_path / "pulled.json").write_text('{"repository": "somebody/else"}')
    with pytest.raises(InputError, match="holds something else"):
        pull(NAME, tmp_path, endpoint=hub.url)
    with pytest.raises(InputError, match=r"notes.txt cannot be written \(Not a directory\)"):
        pull(NAME, tmp_path / "notes.txt", endpoint=hub.url)


def test_too_little_room_is_said_before_anything_is_downloaded(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 10, 1000))
    with pytest.raises(InputError, match=r"needs 0\.00 GB more in .*: make room"):
        pull(NAME, tmp_path, endpoint=hub.url)
    assert asked_for(hub) == []


def test_a_disk_that_is_full_keeps_what_is_there(hub, model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pulling, "http_get", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\): make room"):
        pull(NAME, tmp_path, endpoint=hub.url)
    monkeypatch.undo()
    assert same(pull(NAME, tmp_path, endpoint=hub.url), model)


def test_the_key_goes_to_the_hub_alone(hub, files, tmp_path, monkeypatch):
    """Large files lie on other servers, which get no key."""
    store = FakeHub(NAME, dict(files))
    seen = []
    answer, send_file = store.answer, hub.send_file

    def watch(request, has_body):
        seen.append(request.headers.get("Authorization"))
        answer(request, has_body)

    def redirect(request, name, has_body):
        if name != "model.safetensors":
            return send_file(request, name, has_body)
        headers = {"Location": f"{store.url}{request.path}", "X-Repo-Commit": COMMIT}
        data = files[name]
        headers |= {"X-Linked-Etag": etag_of(name, data), "X-Linked-Size": str(len(data))}
        return hub.send(request, 302, b"", headers, has_body)

    monkeypatch.setattr(store, "answer", watch)
    monkeypatch.setattr(hub, "send_file", redirect)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    try:
        pull(NAME, tmp_path, endpoint=hub.url)
    finally:
        store.close()
    assert seen == [None]
