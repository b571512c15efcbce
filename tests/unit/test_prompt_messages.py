"""Requests with several prompts: they survive the pipe, and those without are what they were."""

from __future__ import annotations

from dataclasses import replace

from deforum_helpers.protocol import ClipRequest, PromptPair, TextMix, decode_request, encode_line

ONE = ClipRequest(
    id="0", model="demo", prompt="a red ball over the sea", negative_prompt="x", width=64, height=48, latent_frames=3,
    new_latents=3, prefix_latents=0, num_inference_steps=3, solver="unipc", shift=3.0, guidance=(4.0,) * 3, seed=5,
    strength=1.0, latents_file="/x", frames_file="/x",
)  # fmt: skip
DAY, NIGHT = PromptPair("day", ""), PromptPair("night", "blurry")
SEVERAL = replace(
    ONE, prompts=(DAY, NIGHT), mixes=(TextMix((0,), (1.0,)), TextMix((0, 1), (0.75, 0.25), True), TextMix((1,), (1.0,)))
)


def test_prompts_and_mixes_come_out_of_the_pipe_as_they_went_in():
    assert decode_request(encode_line(SEVERAL)) == SEVERAL
    assert decode_request(encode_line(ONE)) == ONE


def test_a_request_of_one_prompt_keeps_the_fingerprint_it_had_before_there_could_be_several():
    assert ONE.fingerprint().startswith("e168762136bbe64638019b36")


def test_what_is_heard_when_decides_the_frames():
    swapped = replace(SEVERAL, mixes=SEVERAL.mixes[::-1])
    blended = replace(SEVERAL, mixes=tuple(replace(mix, relay=False) for mix in SEVERAL.mixes))
    reworded = replace(SEVERAL, prompts=(DAY, DAY))
    assert len({r.fingerprint() for r in (ONE, SEVERAL, swapped, blended, reworded)}) == 5
    assert decode_request(encode_line(SEVERAL)).fingerprint() == SEVERAL.fingerprint()


def test_negative_prompts_are_embedded_only_where_guidance_asks_for_them():
    assert ONE.texts == ("a red ball over the sea", "x")
    assert SEVERAL.texts == ("day", "night", "", "blurry")
    assert replace(SEVERAL, guidance=(1.0,) * 3).texts == ("day", "night")
