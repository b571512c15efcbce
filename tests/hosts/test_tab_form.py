"""The form: every field reaches the request, table and JSON are one value, what is wrong is said at its field."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from deforum_helpers.settings import FIELDS, RenderSettings, settings_from_dict
from deforum_helpers.ui.layout import FIRST_PROMPTS, LABELS, PLAIN_NUMBERS, SECTIONS, UNSEEN
from PIL import Image
from tab_pages import ROOT, opened, set_field, values

pytestmark = pytest.mark.timeout(600)

# Something else than the default, for fields whose kind alone doesn't tell what that may be.
OTHER = {
    "init_images": '{"0": "a.png", "max_f/2": "b.png"}',
    "prompts": '{"0": "a fox", "max_f/2": "an owl"}', "model": "demo", "device": "cpu", "seed_schedule": "0: (3)",
    "prompt_travel_schedule": '0: ("blend")',
    "solver_schedule": '0: ("euler")', "continue_from": "/out/20260101000000_settings.txt", "loras": "ink = 0: (0.2)",
}  # fmt: skip


def other(field) -> str | bool:
    """A value that the field takes and that isn't its default, as a person types it."""
    match field.kind:
        case "bool":
            return not field.default
        case "choice":
            return next(choice for choice in field.choices if choice != field.default)
        case "int" | "float":
            step = field.multiple if field.multiple > 1 else 1
            first = step * 2 + field.remainder if field.multiple > 1 else field.default + step
            return str(int(first if first <= field.maximum else field.minimum))
        case "schedule":
            low, high = field.minimum or 0, field.maximum or 4
            return f"0: ({(low + high) / 4:g}), 8: ({high / 2:g})"
    return "own"


def test_every_field_stands_in_the_tab_once() -> None:
    placed = [name for section in SECTIONS for name in section.fields]
    assert sorted([*placed, *UNSEEN]) == sorted(FIELDS)
    assert set(LABELS) == set(FIELDS) - set(UNSEEN)
    assert all(FIELDS[name].kind == "schedule" for name in PLAIN_NUMBERS)
    assert RenderSettings(prompts=FIRST_PROMPTS).prompts == FIRST_PROMPTS


@pytest.fixture(scope="module")
def page(standalone, browser):
    with opened(browser, standalone.url) as page:
        yield page


@pytest.fixture(autouse=True)
def _fresh(request) -> None:
    if "page" in request.fixturenames:
        page = request.getfixturevalue("page")
        page.evaluate("() => { window.deforumWan.resetForm(); window.deforumWan.notices.replaceChildren(); }")
        settled(page)


def settled(page) -> None:
    """Wait until what was typed last is planned."""
    page.evaluate("() => window.deforumWan.planNow()")


def planned(page) -> dict:
    return page.evaluate("() => window.deforumWan.planNow()")


def test_every_visible_field_changes_the_request(page, tmp_path) -> None:
    named = {"init_image": "first.png", "soundtrack": "sound.wav"}
    Image.new("RGB", (64, 48)).save(tmp_path / "first.png")
    (tmp_path / "sound.wav").write_bytes(b"RIFF")
    files = {name: str(tmp_path / file) for name, file in named.items()}
    shown = set(page.evaluate("() => [...document.querySelectorAll('[data-field]')].map((one) => one.dataset.field)"))
    assert shown == set(FIELDS) - set(UNSEEN)
    page.click("role=tab[name=JSON]")
    for name in sorted(shown):
        value = files.get(name) or OTHER.get(name) or other(FIELDS[name])
        page.evaluate("() => window.deforumWan.resetForm()")
        before = values(page)
        set_field(page, name, value)
        after = values(page)
        assert {key for key in after if after[key] != before[key]} == {name}
        # What the server reads out of it is the value that was typed.
        read, wanted = settings_from_dict(after)[0], settings_from_dict({**before, name: value})[0]
        assert getattr(read, name) == getattr(wanted, name) != getattr(settings_from_dict(before)[0], name), name
    page.click("role=tab[name=Table]")


def test_a_number_that_is_scheduled_says_so(page) -> None:
    for name in PLAIN_NUMBERS:
        page.fill(f"#deforum_wan_{name}_plain", "6")
        assert values(page)[name] == "6" == page.input_value(f"#deforum_wan_{name}")
        set_field(page, name, "0: (2), 40: (8)")
        assert page.input_value(f"#deforum_wan_{name}_plain") == "scheduled"
        settled(page)
        assert page.locator(f"[data-field={name}] .dw-schedule-curve polyline").count() == 1
        set_field(page, name, "")
        assert page.input_value(f"#deforum_wan_{name}_plain") == ""


def test_table_and_json_are_one_value(page) -> None:
    page.click("text=+ keyframe")
    row = page.locator(".dw-table tbody tr").last
    row.locator("textarea").first.fill("a lighthouse")
    row.locator("textarea").last.fill("fog")
    row.locator(".dw-key input").fill("max_f - 10")
    assert json.loads(values(page)["prompts"])["max_f - 10"] == "a lighthouse --neg fog"
    settled(page)
    assert row.locator("input.dw-seconds").input_value() == "4.38s"  # frame 70: max_f is the last frame's number
    row.locator(".dw-key input").fill("1.5s")
    row.locator(".dw-key input").blur()
    assert json.loads(values(page)["prompts"])["24"] == "a lighthouse --neg fog"
    page.click("role=tab[name=JSON]")
    assert '"24": "a lighthouse --neg fog"' in page.input_value("#deforum_wan_prompts")
    page.fill("#deforum_wan_prompts", '{"0": "one", "30": "three", "15": "two \\"quoted\\""}')
    page.click("role=tab[name=Table]")
    texts = [area.input_value() for area in page.locator(".dw-table tbody td:nth-child(3) textarea").all()]
    assert texts == ["one", "three", 'two "quoted"'] or texts == ["one", 'two "quoted"', "three"]
    page.locator(".dw-table tbody tr").first.locator("text=×").click()
    assert sorted(json.loads(values(page)["prompts"])) == ["15", "30"]


def test_seconds_and_frames_are_one_length(page) -> None:
    page.fill("#deforum_wan_seconds", "2")
    assert values(page)["max_frames"] == "32"
    page.fill("#deforum_wan_fps", "8")
    assert page.input_value("#deforum_wan_seconds") == "4"


WRONG = [
    ("width", "abc", "must be a number"),
    ("width", "100", "multiple of 16"),
    ("max_frames", "0", "out of range"),
    ("fps", "-1", "out of range"),
    ("guidance_scale", "0: (7*)", "keyframe 0"),
    ("num_inference_steps", "0: (4), 9: (nosuch(t))", "nosuch"),
    ("batch_name", "../../etc", "not usable"),
    ("init_image", "/no/such/picture.png", "no such file"),
    ("seed", "-5", "out of range"),
]


@pytest.mark.parametrize(("name", "typed", "words"), WRONG)
def test_what_is_wrong_is_said_at_its_field(page, name, typed, words) -> None:
    set_field(page, name, typed)
    settled(page)
    told = page.locator(f"[data-field={name}] .dw-error").last
    assert words in told.inner_text()
    assert page.input_value(f"#deforum_wan_{name}") == typed  # kept as it was typed
    assert page.locator("svg.dw-timeline").count() >= 1  # and the timeline stays
    page.evaluate("() => window.deforumWan.generate()")  # to its end: a click alone leaves it waiting for its plan
    page.wait_for_selector(".dw-problem span")
    assert words in page.inner_text(".dw-problem")
    assert page.evaluate("() => window.deforumWan.api('jobs')")["total"] == 0


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ('{"0": "a",}', "line 1, column"),
        ('{"0": "a", "0+": "b"}', "0+"),
        ("{}", "empty"),
        ('{"0": 5}', "must be text"),
        ("just words", "not valid JSON"),
    ],
)
def test_prompts_that_cant_be_read(page, typed, words) -> None:
    page.click("role=tab[name=JSON]")
    page.fill("#deforum_wan_prompts", typed)
    settled(page)
    assert words in page.locator(".dw-prompts > .dw-error").inner_text()
    assert page.input_value("#deforum_wan_prompts") == typed
    page.click("role=tab[name=Table]")


def test_text_of_people_is_never_html(page) -> None:
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    page.click("role=tab[name=JSON]")
    page.fill("#deforum_wan_prompts", json.dumps({"0": evil, "<b>": evil}))
    page.click("role=tab[name=Table]")
    set_field(page, "batch_name", evil)
    settled(page)
    page.wait_for_timeout(200)
    assert page.evaluate("() => window.hacked") is None
    assert page.locator(".dw-app img[src=x]").count() == 0


def drop(page, name: str, text: str) -> None:
    page.evaluate(
        """([name, text]) => {
            const data = new DataTransfer();
            data.items.add(new File([text], name));
            const app = document.querySelector(".dw-app");
            app.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        [name, text],
    )


def test_a_deforum_file_is_dropped_and_exported(page) -> None:
    text = (ROOT / "examples" / "from_deforum.txt").read_text(encoding="utf-8")
    drop(page, "from_deforum.txt", text)
    page.wait_for_selector(".dw-notice:has-text('from_deforum.txt')")
    wanted = settings_from_dict(json.loads(text))[0]
    read = settings_from_dict(values(page))[0]
    assert read == wanted
    with page.expect_download() as download:
        page.click("text=Export settings")
    exported = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert settings_from_dict(exported)[0] == wanted
    drop(page, "broken.txt", '{"W": 64,,}')
    page.wait_for_selector(".dw-notice.dw-bad:has-text('line 1, column')")


def test_a_picture_is_handed_over(page, standalone, tmp_path) -> None:
    picture = tmp_path / "first.png"
    Image.new("RGB", (64, 48), "red").save(picture)
    page.locator("#deforum_wan_init_image").evaluate("from => { from.closest('details').open = true; }")
    with page.expect_file_chooser() as chooser:
        page.locator("[data-field=init_image] button").click()
    chooser.value.set_files(str(picture))
    page.wait_for_function("() => window.deforumWan.store.values.init_image")
    kept = Path(values(page)["init_image"])
    assert kept.read_bytes() == picture.read_bytes() and kept.is_relative_to(standalone.folder)
    assert planned(page)["ok"]
    picture.write_text("no picture")
    with page.expect_file_chooser() as chooser:
        page.locator("[data-field=init_image] button").click()
    chooser.value.set_files(str(picture))
    page.wait_for_selector(".dw-notice.dw-bad:has-text('picture')")


def test_thousands_of_keyframes_and_a_huge_schedule_dont_freeze_it(page) -> None:
    many = json.dumps({str(frame): f"prompt {frame}" for frame in range(3000)})
    page.click("role=tab[name=JSON]")
    began = time.monotonic()
    page.fill("#deforum_wan_prompts", many)
    set_field(page, "max_frames", "3000")
    set_field(page, "guidance_scale", ", ".join(f"{frame}: ({2 + frame % 5})" for frame in range(0, 3000, 2)))
    page.click("role=tab[name=Table]")
    assert planned(page)["plan"]["clip_count"] == 3000
    assert time.monotonic() - began < 20  # on a busy machine; it takes about two seconds
    assert page.locator(".dw-table tbody tr").count() == 201
    page.locator(".dw-table textarea").first.fill("an owl")
    assert json.loads(values(page)["prompts"])["0"] == "an owl"
    assert len(json.loads(values(page)["prompts"])) == 3000
    set_field(page, "guidance_scale", "9" * 200_001)
    settled(page)
    assert "too long" in page.locator("[data-field=guidance_scale] .dw-error").last.inner_text()


def test_what_was_typed_outlives_the_page(page) -> None:
    set_field(page, "positive_prompt", "at dawn")
    page.wait_for_timeout(700)
    page.reload()
    page.wait_for_selector(".dw-app svg.dw-timeline")
    assert values(page)["positive_prompt"] == "at dawn"


def test_keyframe_images_are_rows_and_text(page, tmp_path) -> None:
    page.evaluate("() => { document.querySelector('[data-section=images]').open = true; }")
    files = [tmp_path / "sea.png", tmp_path / "night.png"]
    for file, colour in zip(files, ("teal", "navy"), strict=True):
        Image.new("RGB", (64, 40), colour).save(file)
    with page.expect_file_chooser() as chooser:
        page.click("text=+ picture")
    chooser.value.set_files([str(file) for file in files])
    page.wait_for_selector(".dw-keyframe-image:nth-child(2)")
    found = json.loads(values(page)["init_images"])
    assert list(found) == ["0", "40"] and all(Path(path).suffix == ".png" for path in found.values())
    assert planned(page)["errors"] == []
    page.fill("[aria-label='Frame of picture 2']", "0")  # taken: the first picture is not lost
    assert json.loads(values(page)["init_images"]) == found
    page.fill("[aria-label='Frame of picture 2']", "max_f/2")
    assert list(json.loads(values(page)["init_images"])) == ["0", "max_f/2"]
    assert page.locator("#deforum_wan_init_images").input_value() == values(page)["init_images"]
    page.fill("[aria-label='Frame of picture 2']", "max_f/")
    page.wait_for_selector("[data-field=init_images].dw-wrong")
    set_field(page, "init_images", '{"0": "a.png", ')
    page.wait_for_selector(".dw-pictures >> text=mend it as text")
    assert values(page)["init_images"] == '{"0": "a.png", '
    set_field(page, "init_images", '{"16": "b.png", "0": "a.png"}')
    assert page.locator(".dw-keyframe-image").count() == 2
    page.click(".dw-keyframe-image:nth-child(1) [title=Remove]")
    assert json.loads(values(page)["init_images"]) == {"16": "b.png"}
    page.click(".dw-keyframe-image:nth-child(1) [title=Remove]")
    assert values(page)["init_images"] == ""
