"""Files are whole or not there; folders are checked before a long run."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deforum_helpers import atomic_files
from deforum_helpers.atomic_files import (
    check_output_folder,
    inside,
    part_file,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from deforum_helpers.errors import InputError, OutputError

SCRIPTS = Path(atomic_files.__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writers_put_exactly_what_they_are_given_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "b", b"\r\n\0")
    write_text(tmp_path / "t", "ä\r\nb\n")
    write_json(tmp_path / "j", {"prompt": "日本", "n": [1, 2.5]})
    assert (tmp_path / "b").read_bytes() == b"\r\n\0"
    assert (tmp_path / "t").read_bytes() == "ä\r\nb\n".encode()
    assert json.loads((tmp_path / "j").read_text("utf-8")) == {"prompt": "日本", "n": [1, 2.5]}
    assert names(tmp_path) == ["b", "j", "t"]


def test_what_json_can_not_say_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "j", {"fps": float("nan")})
    assert names(tmp_path) == []


def test_a_failing_block_keeps_the_old_file_and_passes_its_error_on(tmp_path):
    target = tmp_path / "video.mp4"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), part_file(target) as part:
        part.write_bytes(b"half")
        raise FileNotFoundError("the caller's own trouble")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["video.mp4"]


def test_the_data_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), real_sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), real_replace(a, b)))
    write_bytes(tmp_path / "x", b"1")
    assert calls[:2] == ["sync", "rename"]


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    target = tmp_path / "settings.txt"
    target.write_text("old")

    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError) as caught:
        write_text(target, "new settings")
    assert "disk is full" in str(caught.value) and "settings.txt" in str(caught.value)
    assert caught.value.next_step and "\n" not in str(caught.value)
    assert target.read_text() == "old" and names(tmp_path) == ["settings.txt"]


def test_a_folder_that_vanished_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="folder is gone"):
        write_text(tmp_path / "gone" / "x.txt", "x")


def test_a_file_in_use_is_waited_for(tmp_path, monkeypatch):
    tries = []
    real = os.replace

    def locked_twice(source, target):
        tries.append(target)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "in use")
        real(source, target)

    monkeypatch.setattr(atomic_files, "_CAN_BE_LOCKED", True)
    monkeypatch.setattr(atomic_files, "_LOCKED_PAUSE", 0)
    monkeypatch.setattr(os, "replace", locked_twice)
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new" and len(tries) == 3


def test_a_file_that_stays_in_use_is_said_and_kept(tmp_path, monkeypatch):
    def locked(source, target):
        raise PermissionError(errno.EACCES, "in use")

    (tmp_path / "x").write_text("old")
    monkeypatch.setattr(atomic_files, "_CAN_BE_LOCKED", True)
    monkeypatch.setattr(atomic_files, "_LOCKED_PAUSE", 0)
    monkeypatch.setattr(os, "replace", locked)
    with pytest.raises(OutputError, match="in use by another program") as caught:
        write_text(tmp_path / "x", "new")
    assert "close the program" in caught.value.next_step
    assert (tmp_path / "x").read_text() == "old" and names(tmp_path) == ["x"]


def test_a_killed_writer_leaves_the_old_file_and_a_leftover_that_is_cleared(tmp_path):
    (tmp_path / "x").write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from deforum_helpers.atomic_files import part_file\n"
        "with part_file(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half')\n"
        "    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], cwd=SCRIPTS, check=False)
    assert (tmp_path / "x").read_text() == "old"
    assert len(remove_leftovers(tmp_path)) == 1
    assert names(tmp_path) == ["x"]


def test_the_output_folder_is_made_and_left_empty(tmp_path):
    folder = check_output_folder(tmp_path / "a" / "b", bytes_needed=1000)
    assert folder.is_dir() and folder.is_absolute() and names(folder) == []


def test_a_folder_without_room_is_refused_with_its_name(tmp_path):
    with pytest.raises(InputError, match="MiB free") as caught:
        check_output_folder(tmp_path, bytes_needed=1 << 60)
    assert tmp_path.name in str(caught.value) and caught.value.next_step and caught.value.exit_code == 2


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(InputError, match="can't write to the output folder"):
            check_output_folder(folder)


def test_a_folder_that_can_not_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(path, data):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InputError, match="not allowed") as caught:
        check_output_folder(tmp_path)
    assert "another output folder" in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "sub/a.png", "sub\\a.png", "Deforum_2026 ü", "..a", "con1"])
def test_names_that_stay_inside(tmp_path, name):
    target = inside(tmp_path, name)
    assert target.is_relative_to(tmp_path.resolve()) and target != tmp_path.resolve()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "a\\..\\..\\x", "/etc/passwd", "\\\\host\\x", "C:\\x", "C:x", "a//b", "a/",
     "x\0y", "x\ny", "a:b", "NUL", "con.txt", "com1", "x.", "x ", "x" * 256, "what?", "*.png"],
)  # fmt: skip
def test_names_that_leave_or_break(tmp_path, name):
    with pytest.raises(InputError, match="stay inside"):
        inside(tmp_path, name)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_does_not_lead_out(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        inside(tmp_path / "in", "link/x")
