"""What a plan is made of.  schedules.py reads schedules, timeline.py makes the plan.

    expressions.py   Deforum's expressions, computed without eval
    prompts.py       prompt keyframes, and the text at a frame
    seeds.py         one seed per clip
    stream.py        the arithmetic of shots: which latents each clip makes and keeps
    loras.py         the LoRA lines of the settings, and their strengths
    limits.py        what a model can't do is refused; what has to be bent is said
    clip_maker.py    one stretch of a shot becomes a clip with everything decided
    picture.py       a plan as SVG
"""
