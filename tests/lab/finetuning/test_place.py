from __future__ import annotations

from pathlib import Path

import pytest

from forgetless import ForgetlessError
from forgetless.lab.finetuning.place import Place


def begun(path: Path) -> Place:
    place = Place(path, resume=False)
    place.begin({"model": "m", "seed": 0})
    return place


def test_nothing_is_written_before_it_begins_and_nothing_but_results_stay(tmp_path: Path) -> None:
    path = tmp_path / "o"
    place = Place(path, resume=False)
    assert not path.exists()
    place.begin({"model": "m"})
    place.note("mas", {"new_accuracy": 1.0})
    place.save(lambda folder: (folder / "model").write_text("weights") and None)
    assert (place.done("mas"), place.done("finetune"), place.summary) == ({"new_accuracy": 1.0}, None, None)
    place.finish({"all": 1})
    assert sorted(each.name for each in path.iterdir()) == ["asked.json", "learned.json", "model"]
    again = Place(path, resume=True)
    again.begin({"model": "m"})
    assert (again.summary, (path / "work").exists()) == ({"all": 1}, False)


def test_a_model_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    place = begun(tmp_path / "o")

    def fails(folder: Path) -> None:
        (folder / "model").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        place.save(fails)
    assert not (tmp_path / "o" / "model").exists()


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    begun(tmp_path / "o")
    with pytest.raises(ForgetlessError, match=r"exists already; continue it with --resume, or choose another --out"):
        Place(tmp_path / "o", resume=False)
    with pytest.raises(ForgetlessError, match=r"something else \(seed: 0 there, 1 here\); choose another --out"):
        Place(tmp_path / "o", resume=True).begin({"model": "m", "seed": 1})
    Place(tmp_path / "o", resume=True).begin({"model": "m", "seed": 0})
    (tmp_path / "file").touch()
    with pytest.raises(ForgetlessError, match=r"exists already; choose another --out"):
        Place(tmp_path / "file", resume=False)
    (tmp_path / "empty").mkdir()
    Place(tmp_path / "empty", resume=False)  # an empty folder will do


def test_what_a_process_leaves_that_was_killed(tmp_path: Path) -> None:
    early = tmp_path / "early"  # before it was noted what was asked
    early.mkdir()
    (early / f".asked.json.{'0' * 16}").write_text("{")
    (early / "lock").touch()
    place = Place(early, resume=False)
    with place.alone():
        place.begin({"model": "m"})
    assert sorted(each.name for each in early.iterdir()) == ["asked.json", "work"]
    late = begun(tmp_path / "late")  # while it removed what is needed no more
    late.finish({"all": 1})
    (late.work / "mas").mkdir(parents=True)
    again = Place(late.path, resume=True)
    again.begin({"model": "m", "seed": 0})
    assert sorted(each.name for each in late.path.iterdir()) == ["asked.json", "learned.json"]
    moving = begun(tmp_path / "moving")  # while it moved the model's files

    def write(folder: Path) -> None:
        (folder / "more").mkdir()
        (folder / "more" / "file").touch()

    moving.save(write)
    moving.save(write)
    assert [each.name for each in (moving.path / "more").iterdir()] == ["file"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = Place(tmp_path / "o", resume=False), Place(tmp_path / "o", resume=False)
    with first.alone():
        with pytest.raises(ForgetlessError, match=r"o is in use by another process \(\d+\); wait until it ends"):
            second.alone().__enter__()
        first.begin({"model": "m"})
    with pytest.raises(ForgetlessError, match=r"o exists already; continue it with --resume"):
        second.alone().__enter__()
    with Place(tmp_path / "new", resume=False).alone():
        pass
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "said"), [("x" * 300, "its name is too long"), ("a\0b", "cannot hold a NUL")])
def test_a_name_that_no_folder_can_have(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        Place(tmp_path / name, resume=False)
