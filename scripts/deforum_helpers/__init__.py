"""Deforum Wan: prompt schedules in, exactly timed Wan 2.1 video out.  README.md has the map of the files."""
