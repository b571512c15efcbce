"""Pictures in time.  video_io.py writes them into a file.

    frames.py         frames on disk: native ones as npy, output ones as numbered PNGs
    retiming.py       output frames at any rate from native ones
    in_between.py     a frame between two frames, by the motion between them
    optical_flow.py   that motion
    ffmpeg.py         the program that encodes, found and tried
    subtitles.py      the prompts as .srt
"""
