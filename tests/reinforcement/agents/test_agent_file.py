"""Tests of dlcompanion.reinforcement.agents.agent_file."""

import json
import zipfile

import keras
import numpy as np
import pytest

from dlcompanion.reinforcement.agents import agent_file


@keras.saving.register_keras_serializable(package="dlcompanion.tests")
class Own(keras.layers.Dense):
    pass


def written(tmp_path):
    path = tmp_path / "agent"
    model = keras.Sequential([keras.Input((3,)), Own(2)])
    arrays = {"memory.x": np.arange(6, dtype="float32").reshape(3, 2)}
    agent_file.write(path, {"steps": 7}, model, arrays)
    return path, model


def test_reads_what_was_written(tmp_path):
    path, model = written(tmp_path)
    state, loaded, arrays = agent_file.read(path)
    assert state == {"steps": 7} and list(arrays) == ["memory.x"]
    assert arrays["memory.x"].dtype == "float32"
    assert arrays["memory.x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_of_numpy_are_numbers(tmp_path):
    path, model = written(tmp_path)
    state = {"rate": np.float32(0.1), "count": np.int64(3), "on": np.bool_(True)}
    agent_file.write(path, state, model)
    again, _, _ = agent_file.read(path)
    assert again == {"rate": float(np.float32(0.1)), "count": 3, "on": True}
    with pytest.raises(TypeError, match="Received: <object"):
        agent_file.write(path, {"other": object()}, model)
    assert agent_file.read(path)[0] == again  # what was there is left as it was


def test_holds_no_pickle(tmp_path):
    path, _ = written(tmp_path)
    with zipfile.ZipFile(path) as file:
        names = ["agent.json", "arrays/memory.x.npy", "learner.keras"]
        assert sorted(file.namelist()) == names
        assert json.loads(file.read("agent.json"))["steps"] == 7


def test_refuses_broken_files_and_leaves_them(tmp_path):
    path, _ = written(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for broken in (whole[: len(whole) // 2], whole[:-1], b"", b"no agent", flipped):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not a whole file.*Received: "):
            agent_file.read(path)
        assert path.read_bytes() == broken


@pytest.mark.parametrize("text", ['{"format": "else"}', "{}", "[]", "{"])
def test_refuses_foreign_archives(tmp_path, text):
    with zipfile.ZipFile(tmp_path / "other", "w") as file:
        file.writestr("agent.json", text)
    with pytest.raises(ValueError, match="not a whole file.*Received: "):
        agent_file.read(tmp_path / "other")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        agent_file.read(tmp_path / "none")
    with pytest.raises(ValueError, match="not a whole file"):
        agent_file.read(tmp_path)


def test_a_failed_write_keeps_the_last_file(tmp_path, monkeypatch):
    path, model = written(tmp_path)
    whole = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(OSError, match="no space"):
        agent_file.write(path, {"steps": 8}, model)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["agent"]


def test_the_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path, model = written(tmp_path)
    steps = []

    def replace(source, target):
        with zipfile.ZipFile(source) as file:
            assert file.testzip() is None  # whole before it takes the name
        steps.append((source.parent.parent, target))

    monkeypatch.setattr(agent_file.os, "replace", replace)
    agent_file.write(path, {"steps": 8}, model)
    assert steps == [(tmp_path, path)]


def test_says_how_to_load_a_class_of_ones_own(tmp_path, monkeypatch):
    path, _ = written(tmp_path)
    registered = keras.saving.get_custom_objects()
    monkeypatch.delitem(registered, "dlcompanion.tests>Own")
    with pytest.raises(ValueError, match="register_keras_serializable.*Received: "):
        agent_file.read(path)
