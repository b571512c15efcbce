"""The LoRA editor: a row a file, chosen from those that the WebUI has, with a number or a schedule for its strength."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tab_pages import WebUI, opened, values

pytestmark = pytest.mark.timeout(600)
SHAPES = {"lora_A": (4, 160), "lora_B": (160, 4)}


def write_lora(path: Path) -> None:
    """A LoRA of zeros for the demo's first block."""
    header, at = {}, 0
    for name, shape in SHAPES.items():
        size = 4 * shape[0] * shape[1]
        header[f"diffusion_model.blocks.0.self_attn.q.{name}.weight"] = {
            "dtype": "F32", "shape": shape, "data_offsets": [at, at + size],
        }  # fmt: skip
        at += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))


def test_files_are_chosen_weighed_and_removed(gradio3_python, browser, tmp_path) -> None:
    models = tmp_path / "data" / "webui" / "models"
    (models / "wan").mkdir(parents=True)
    write_lora(models / "Lora" / "ink.safetensors")
    write_lora(models / "Lora" / "styles" / "grain.safetensors")
    webui = WebUI(str(gradio3_python), tmp_path)
    try:
        with opened(browser, webui.url) as page:
            page.evaluate("() => { document.querySelector('[data-section=lora]').open = true; }")
            edit(page)
    finally:
        webui.stop()


def edit(page) -> None:
    page.click("text=+ LoRA")
    page.wait_for_selector("[aria-label='LoRA 1'] option:has-text('ink (5 kB)')", state="attached")
    page.select_option("[aria-label='LoRA 1']", "ink")
    page.click("text=+ LoRA")
    page.fill("[aria-label='Strength of LoRA 1']", "0.5")
    page.fill("[aria-label='Strength of LoRA 2']", "0: (0.2), 40: (0.9)")
    wanted = "ink = 0.5\nstyles/grain = 0: (0.2), 40: (0.9)"
    assert values(page)["loras"] == wanted == page.locator("#deforum_wan_loras").input_value()
    assert page.evaluate("() => window.deforumWan.planNow()")["errors"] == []
    assert page.locator("[data-section=lora] .dw-told").text_content() == wanted.replace("\n", " · ")
    page.fill("[aria-label='Strength of LoRA 2']", "0: (0.2), 40: (0.9*)")
    page.wait_for_selector("[data-field=loras].dw-wrong .dw-error:has-text('line 2')")
    page.evaluate("() => window.deforumWan.store.set('loras', '# mine\\nnosuch = 1')")
    page.wait_for_selector("[aria-label='LoRA 2'] option:has-text('nosuch (not found)')", state="attached")
    page.wait_for_selector("[data-field=loras].dw-wrong")
    page.click(".dw-lora [title=Remove]")
    assert values(page)["loras"] == "# mine"  # what a person wrote beside it stays
