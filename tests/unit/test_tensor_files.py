"""Headers of weights files: what is read off them, and that nothing hostile gets through or is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest
from deforum_helpers.errors import ModelError
from deforum_helpers.model_files import read_tensor_file
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_models import manifest, write_raw, write_sparse


def _header(**tensors: object) -> bytes:
    return json.dumps(tensors).encode()


def _entry(begin: int, end: int, shape: object = None, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def test_names_shapes_and_dtypes(tmp_path: Path) -> None:
    file = read_tensor_file(write_sparse(tmp_path / "x.safetensors", {"a": (2, 3), "b": ()}, "BF16", {"b": "F32"}))
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in file.tensors.items()} == {
        "a": ("BF16", (2, 3), 12),
        "b": ("F32", (), 4),
    }
    assert file.format == "safetensors"


def test_a_header_is_read_once_until_the_file_changes(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "x.safetensors", {"a": (2,)})
    first = read_tensor_file(path)
    assert read_tensor_file(path) is first
    write_sparse(path, {"b": (4,)})
    assert list(read_tensor_file(path).tensors) == ["b"]


@pytest.mark.parametrize(
    ("header", "room", "says"),
    [
        (_header(a=_entry(0, 8)), 4, "truncated"),
        (_header(a=_entry(0, 8)), 12, "belong to no tensor"),
        (_header(a=_entry(0, 8), b=_entry(4, 12)), 12, "'b' overlaps another"),
        (_header(a=_entry(0, 4), b=_entry(8, 12)), 12, "'b' leaves a hole"),
        (_header(a=_entry(0, 8, [3])), 8, "8 bytes for a U8 tensor"),
        (_header(a=_entry(0, 8, [2], "F33")), 8, "unknown dtype"),
        (_header(a=_entry(-8, 0, [8])), 8, "not a size"),
        (_header(a=_entry(0, 8, [-8])), 8, "not a size"),
        (_header(a=_entry(0, 8, [True, 8])), 8, "not a size"),
        (_header(a=_entry(0, 8, [1e30])), 8, "not a size"),
        (_header(a=_entry(0, 0, [0] * 99)), 0, "not a size"),
        (_header(a=_entry(0, 1 << 62, [1 << 61, 2])), 8, "not a size"),
        (_header(a=3), 0, "damaged"),
        (_header(a={"dtype": "U8"}), 0, "damaged"),
        (_header(a={"dtype": ["U8"], "shape": [], "data_offsets": [0, 1]}), 1, "damaged"),
        (b"[1, 2]", 0, "damaged"),
        (b'{"a": ' * 9000, 0, "damaged"),
        (b"[" * 400_000, 0, "damaged"),
        (b'{"a": 1, "a": 2}', 0, "a name appears twice"),
        (b'{"__metadata__": 3}', 0, "__metadata__"),
        (b"\xff\xfe\x00", 0, "damaged"),
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, header: bytes, room: int, says: str) -> None:
    path = write_raw(tmp_path / "x.safetensors", header, room)
    with pytest.raises(ModelError, match=says) as caught:
        read_tensor_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\x05", "only 1 bytes"),
        (struct.pack("<Q", 1 << 63) + b"x" * 20, "announces a header"),
        (struct.pack("<Q", 500) + b"x" * 20, "truncated"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n  <html lang='en'>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n", "git-lfs"),
        (b'{"error": "Access denied, please log in"}', "JSON text"),
        (b"PK\x03\x04 not a zip at all", "truncated or not a torch file"),
        (b"GGUF\x03\x00\x00\x00", "damaged GGUF"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "older|before 2020"),
    ],
)
def test_what_failed_downloads_leave_behind(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says):
        read_tensor_file(path)


def test_unreadable_and_looping_paths(tmp_path: Path) -> None:
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(ModelError):
            read_tensor_file(path)


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_header_or_a_model_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        read_tensor_file(path)
    except ModelError as error:
        assert "\n" not in str(error)


# torch's pickles, written by hand: nothing here imports torch


class _Evil:
    def __reduce__(self) -> object:
        return os.system, ("touch /tmp/deforum_wan_pickle_was_run",)


def _pth(path: Path, program: bytes, *, data: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in (data or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def _tensor(
    name: bytes, storage: bytes, key: bytes, numel: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> bytes:
    """The opcodes that torch.save writes for one entry of a state dict."""

    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    def text(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    def group(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(n) for n in values) + b"t"

    place = b"(" + text(b"storage") + b"ctorch\n" + storage + b"\n" + text(key) + text(b"cpu") + number(numel) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + place + number(0) + group(shape) + group(stride) + b"\x89" + hooks + b"t"
    return text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _state_dict(*entries: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(entries) + b"u."


def test_pth_lists_its_tensors(tmp_path: Path) -> None:
    program = _state_dict(
        _tensor(b"w", b"FloatStorage", b"0", 6, (2, 3), (3, 1)), _tensor(b"b", b"BFloat16Storage", b"1", 4, (4,), (1,))
    )
    file = read_tensor_file(_pth(tmp_path / "x.pth", program, data={"0": bytes(24), "1": bytes(8)}))
    assert file.format == "torch"
    assert {name: (t.dtype, t.shape) for name, t in file.tensors.items()} == {"w": ("F32", (2, 3)), "b": ("BF16", (4,))}


def test_pth_with_code_is_refused_by_name_and_never_run(tmp_path: Path) -> None:
    marker = Path("/tmp/deforum_wan_pickle_was_run")
    marker.unlink(missing_ok=True)
    for protocol in (2, 4):
        path = _pth(tmp_path / f"evil{protocol}.pth", pickle.dumps({"w": _Evil()}, protocol))
        with pytest.raises(ModelError, match=r"would run (posix|nt|os)\.system"):
            read_tensor_file(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (pickle.dumps([1, 2], 2), "not named tensors"),
        (pickle.dumps({"epoch": 3}, 2), "'epoch' is a int, not a tensor"),
        (pickle.dumps({"model": {"a": 1}}, 2), "'model' is a nested dict"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.", "torch._utils._rebuild_tensor_v2"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x02ccollections\nOrderedDict\n(X\x01\x00\x00\x00atR.", "damaged"),
        (b"\x80\x02}(X\x01\x00\x00\x00a", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02u.", "damaged"),
        (b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "neither text nor a number"),
        (b"\x80\x02(i__main__\nX\n.", "INST"),
        (b"garbage", "damaged"),
    ],
)
def test_pth_that_holds_something_else(tmp_path: Path, program: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        read_tensor_file(_pth(tmp_path / "x.pth", program))
    assert "\n" not in str(caught.value)


def test_pth_whose_data_is_short_or_gone(tmp_path: Path) -> None:
    program = _state_dict(_tensor(b"w", b"FloatStorage", b"0", 6, (2, 3), (3, 1)))
    with pytest.raises(ModelError, match="'w' is not in it"):
        read_tensor_file(_pth(tmp_path / "gone.pth", program))
    with pytest.raises(ModelError, match="reaches past its data"):
        read_tensor_file(_pth(tmp_path / "short.pth", program, data={"0": bytes(20)}))
    reaching = _state_dict(_tensor(b"w", b"FloatStorage", b"0", 6, (2, 3), (1000, 1)))
    with pytest.raises(ModelError, match="reaches past its data"):
        read_tensor_file(_pth(tmp_path / "reaching.pth", reaching, data={"0": bytes(24)}))
    whole = _pth(tmp_path / "whole.pth", program, data={"0": bytes(24)}).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-30])
    with pytest.raises(ModelError, match="truncated"):
        read_tensor_file(tmp_path / "cut.pth")


def test_pth_that_would_unpack_to_gigabytes(tmp_path: Path) -> None:
    path = _pth(tmp_path / "bomb.pth", bytes(50_000_000), method=zipfile.ZIP_DEFLATED)
    started = time.process_time()
    with pytest.raises(ModelError, match="compressed"):
        read_tensor_file(path)
    assert time.process_time() - started < 0.5


def test_a_plain_zip_is_not_weights(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "x.bin").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match=r"not one that torch\.save wrote"):
        read_tensor_file(tmp_path / "x.bin")


# GGUF


def _gguf(tensors: list[tuple[str, list[int], int, int]], values: bytes = b"", count: int = 0, data: int = 0) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + values
    for name, dims, kind, offset in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32 + data)


def test_gguf_shapes_come_in_torchs_order(tmp_path: Path) -> None:
    key = b"comfy.gguf.orig_shape.p"
    true_shape = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 5, 5) + struct.pack("<5i", 4, 4, 1, 2, 2)
    content = _gguf([("w", [256, 2], 12, 0), ("p", [2, 2, 4, 4], 0, 288)], true_shape, 1, data=288 + 256)
    (tmp_path / "x.gguf").write_bytes(content)
    file = read_tensor_file(tmp_path / "x.gguf")
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in file.tensors.items()} == {
        "w": ("Q4_K", (2, 256), 288),
        "p": ("F32", (4, 4, 1, 2, 2), 256),
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_gguf([("w", [256], 12, 0)]), "truncated"),
        (_gguf([("w", [256], 999, 0)], data=999), "damaged"),
        (_gguf([("w", [255], 12, 0)], data=999), "size that is none"),
        (_gguf([("w", [1 << 40, 1 << 40], 0, 0)]), "size that is none"),
        (_gguf([("w", [1] * 9, 0, 0)]), "9 dimensions"),
        (_gguf([("w", [1], 0, 0), ("w", [1], 0, 0)], data=8), "appears twice"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "more entries"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 50), "a text of"),
        (_gguf([], struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 40), 1), "an array of"),
    ],
)
def test_broken_gguf_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=says):
        read_tensor_file(tmp_path / "x.gguf")


def test_a_fourteen_billion_parameter_header_takes_milliseconds(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "big.safetensors", manifest("wan2.1_t2v_14B.official"), "F32")
    assert path.stat().st_size > 57e9
    started = time.process_time()
    assert len(read_tensor_file(path).tensors) == 1095
    assert time.process_time() - started < 0.5
