"""Loading: what is in the file is what is in the module, in every format, and nothing is loaded in part."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from deforum_helpers.errors import ModelError
from deforum_helpers.model_files import PartInfo, Source, identify_parts, inspect_model, read_tensor_file, scan_folder
from deforum_helpers.wan import weights
from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.weights import load_into, load_module, load_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from sparse_models import write_sparse

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "models" / "demo"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dit() -> dict[str, Tensor]:
    return load_file(BUNDLED / "diffusion_pytorch_model.safetensors")


def part_of(path: Path) -> PartInfo:
    (part,) = identify_parts([read_tensor_file(path)])
    return part


def loaded(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return dict(load_state(part_of(path), CPU, dtype))


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype, name
        assert torch.equal(got[name], value), name


def test_every_part_of_the_demo_loads_as_stored() -> None:
    info = inspect_model(BUNDLED).require()
    for name in ("dit", "vae", "text_encoder"):
        part = info.parts[name]
        stored = load_file(part.files[0])
        assert_same(dict(load_state(part, CPU, torch.float16)), stored)
        assert_same(dict(load_state(part, CPU, torch.float32)), {n: v.float() for n, v in stored.items()})


def test_one_dtype_for_some_and_another_for_the_rest(dit: dict[str, Tensor]) -> None:
    part = inspect_model(BUNDLED).parts["dit"]

    def rule(name: str) -> torch.dtype:
        return torch.float32 if "norm" in name or "modulation" in name else torch.bfloat16

    assert all(value.dtype == rule(name) for name, value in load_state(part, CPU, rule))


def test_a_module_gets_all_its_weights(dit: dict[str, Tensor]) -> None:
    part = inspect_model(BUNDLED).parts["dit"]
    sizes = part.sizes
    config = DitConfig(
        dim=sizes["dim"], ffn_dim=sizes["ffn_dim"], num_heads=5, num_layers=sizes["num_layers"],
        text_dim=sizes["text_dim"], text_len=64,
    )  # fmt: skip
    model = load_module(lambda: WanFlowMatchingModel(config), part, CPU, torch.float32)
    assert not model.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())
    assert_same(model.state_dict(), {name: value.float() for name, value in dit.items()})


def test_shards_with_and_without_an_index(dit: dict[str, Tensor], tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path / "demo")
    (tmp_path / "demo" / "diffusion_pytorch_model.safetensors").unlink()
    names, where = sorted(dit), {}
    for i in range(3):
        file = f"diffusion_pytorch_model-{i + 1:05d}-of-00003.safetensors"
        shard = {name: dit[name] for name in names[i * len(names) // 3 : (i + 1) * len(names) // 3]}
        save_file(shard, tmp_path / "demo" / file)
        where |= dict.fromkeys(shard, file)
    for _ in range(2):
        info = inspect_model(tmp_path / "demo").require()
        assert len(info.parts["dit"].files) == 3
        assert_same(dict(load_state(info.parts["dit"], CPU, torch.float16)), dit)
        index = tmp_path / "demo" / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": where}))


def test_pth_is_mapped_and_loaded_with_weights_only(dit: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(dit, tmp_path / "x.pth")
    assert_same(loaded(tmp_path / "x.pth", torch.float16), dit)
    ordered = torch.nn.ParameterDict({"w": torch.ones(3)}).state_dict()
    torch.save({**dit, **{f"zz.{n}": v for n, v in ordered.items()}}, tmp_path / "extra.pth")
    assert part_of(tmp_path / "extra.pth").problems == ("zz.w does not belong there",)


def test_the_walked_pickle_lists_what_torch_loads(tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    state["bf16"] = torch.randn(5, 6).to(torch.bfloat16).t()
    state["fp8"] = torch.randn(2, 2).to(torch.float8_e4m3fn)
    state["parameter"] = torch.nn.Parameter(torch.zeros(2, 0))
    whole = torch.arange(10.0)
    state["view"], state["other view"] = whole[2:5], whole[::2]
    torch.save(state, tmp_path / "x.pth")
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.int64: "I64"}
    listed = read_tensor_file(tmp_path / "x.pth").tensors
    assert {name: (entry.dtype, entry.shape) for name, entry in listed.items()} == {
        name: (names[value.dtype], tuple(value.shape)) for name, value in state.items()
    }


def test_a_whole_module_in_a_pth_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"would run torch\.nn\.modules\.linear\.Linear"):
        read_tensor_file(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("blocks.1.ffn.0.bias"), "blocks.1.ffn.0.bias missing"),
        (lambda t: t.update(stranger=torch.zeros(2)), "stranger does not belong there"),
        (lambda t: t.update({"blocks.1.ffn.0.bias": torch.zeros(7)}), r"blocks.1.ffn.0.bias is \[7\], must be \[480\]"),
        (lambda t: t["blocks.1.ffn.0.bias"].fill_(float("nan")), "'blocks.1.ffn.0.bias' holds NaN or infinity"),
        (lambda t: t["head.head.weight"][3, 3].fill_(float("-inf")), "'head.head.weight' holds NaN or infinity"),
    ],
)
def test_faults_are_named(
    dit: dict[str, Tensor], tmp_path: Path, change: Callable[[dict[str, Tensor]], object], says: str
) -> None:
    tensors = {name: value.clone() for name, value in dit.items()}
    change(tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=says) as caught:
        loaded(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(caught.value)


def test_a_file_that_changed_after_it_was_looked_at(dit: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(dit, path)
    part = part_of(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="truncated"):
        dict(load_state(part, CPU, torch.float32))


def test_load_into_names_missing_extra_and_misshapen() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(3, 2)
    with pytest.raises(ModelError) as caught:
        load_into(module, {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}, where="file.pth")
    message = str(caught.value)
    assert message.startswith(
        "file.pth: bias is missing; scale does not belong there; weight is [2, 4], must be [2, 3]"
    )
    assert all(parameter.is_meta for parameter in module.parameters())


def test_scaled_fp8_is_restored(dit: dict[str, Tensor], tmp_path: Path) -> None:
    """Per tensor with the old names, per row with the new ones."""
    stored, wanted = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, value in dit.items():
        wanted[name] = stored[name] = value.float()
        if not name.endswith(("attn.q.weight", "ffn.0.weight")):
            continue
        per_row = name.endswith("ffn.0.weight")
        scale = value.float().abs().amax(dim=1, keepdim=True) if per_row else value.float().abs().max()
        scale = scale / 448
        stored[name] = (value.float() / scale).to(torch.float8_e4m3fn)
        stored[name[: -len("weight")] + ("weight_scale" if per_row else "scale_weight")] = scale
        wanted[name] = stored[name].float() * scale
    prefixed = {f"model.diffusion_model.{name}": value.contiguous() for name, value in stored.items()}
    save_file(prefixed, tmp_path / "x.safetensors")
    got = loaded(tmp_path / "x.safetensors")
    assert_same(got, wanted)
    error = (got["blocks.0.ffn.0.weight"] - dit["blocks.0.ffn.0.weight"].float()).abs().max()
    assert 0 < error < 0.05


def test_plain_fp8_and_int8(dit: dict[str, Tensor], tmp_path: Path) -> None:
    stored, wanted = {}, {}
    for name, value in dit.items():
        wanted[name] = stored[name] = value.float()
        if name.endswith("cross_attn.k.weight"):
            stored[name] = value.to(torch.float8_e5m2)
            wanted[name] = stored[name].float()
        elif name.endswith("cross_attn.v.weight"):  # quanto's names
            scale = value.float().abs().amax(dim=1, keepdim=True) / 127
            whole = (value.float() / scale).round().to(torch.int8)
            del stored[name]
            stored |= {f"{name}._data": whole, f"{name}._scale": scale}
            wanted[name] = whole.float() * scale
    save_file(stored, tmp_path / "x.safetensors")
    assert_same(loaded(tmp_path / "x.safetensors"), wanted)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_gguf(kind: str, dit: dict[str, Tensor], tmp_path: Path) -> None:
    """Written by the gguf package, as converters do: small tensors stay in float32."""
    import gguf
    import numpy as np

    quantized = gguf.GGMLQuantizationType[kind]
    writer, wanted = gguf.GGUFWriter(tmp_path / "x.gguf", "wan"), {}
    for name, value in dit.items():
        array = value.float().numpy()
        wanted[name] = value.float()
        small = array.ndim != 2 or array.size <= 1024 or array.shape[-1] % 32
        if small:
            writer.add_tensor(name, array)
            continue
        raw = gguf.quantize(array, quantized)
        writer.add_tensor(name, raw, raw_dtype=quantized)
        wanted[name] = torch.from_numpy(np.array(gguf.dequantize(raw, quantized)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part = part_of(tmp_path / "x.gguf")
    assert (part.part, part.problems, part.quantization) == ("dit", (), "gguf")
    assert_same(loaded(tmp_path / "x.gguf"), wanted)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
def test_one_tensor_at_a_time(tmp_path: Path) -> None:
    """480 MB are loaded, converted, and dropped again; never more than two tensors' worth is in memory."""
    shape, names = (4096, 4096), [f"blocks.{i}.attn.q.weight" for i in range(15)]
    path = write_sparse(tmp_path / "x.safetensors", dict.fromkeys(names, shape))
    sources = {name: Source(shape, ((str(path), name),), ("",)) for name in names}
    part = PartInfo("text_encoder", "official", "safetensors", (str(path),), "BF16", 0, sources=sources)

    def anonymous_megabytes() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) // 1024

    before = anonymous_megabytes()
    grown = [anonymous_megabytes() - before for _ in load_state(part, CPU, torch.float32)]
    assert len(grown) == 15
    assert max(grown) < 2 * 64 + 64


_LOAD = """
import sys
from deforum_helpers.wan.loading import load_parts
from deforum_helpers.wan.machine import choose_machine
load_parts(sys.argv[1], choose_machine("cpu", "auto"), lambda *told: None)
print("torch._dynamo" in sys.modules)
"""


def test_loading_does_not_import_torch_s_compiler(tmp_path: Path) -> None:
    """It takes seconds and 100 MB, and some plain operations on the meta device bring it in.  The text encoder does,
    too, but with a prompt seen before it stays away."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "DEFORUM_WAN_CACHE": str(tmp_path)}
    words = [sys.executable, "-c", _LOAD, str(BUNDLED)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=200)
    assert done.stdout.split() == ["False"], done.stderr


def test_only_the_shard_in_work_is_mapped(
    dit: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, open_now, most = list(dit), set(), []
    for k in range(4):
        save_file({name: dit[name] for name in names[k::4]}, tmp_path / f"x-{k + 1:05d}-of-00004.safetensors")
    (part,) = scan_folder(tmp_path).parts

    @contextlib.contextmanager
    def noted(file: str, **options: object) -> Iterator[object]:
        open_now.add(file)
        most.append(len(open_now))
        with safe_open(file, **options) as opened:
            yield opened
        open_now.remove(file)

    monkeypatch.setattr(weights, "safe_open", noted)
    assert_same(dict(load_state(part, CPU, torch.float16)), dit)
    assert (len(most), max(most), open_now) == (4, 1, set())


def test_wide_rows_are_converted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers however many rows go at once."""
    stored, scale = torch.randn(37, 5).to(torch.float8_e4m3fn), torch.rand(37, 1)
    wanted = (stored.float() * scale).bfloat16()
    for at_once in (1, 12, 1 << 24):
        monkeypatch.setattr(weights, "_AT_ONCE", at_once)
        assert torch.equal(weights._rescaled(stored, scale, torch.bfloat16), wanted)
    with pytest.raises(ValueError, match="36 scales for 37 rows"):
        weights._rescaled(stored, scale[1:], torch.bfloat16)
