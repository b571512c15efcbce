"""How the isolated environment is built.  wan_isolated_env.py says where it is and starts a worker in it.

    build.py      a virtual environment, torch, the pinned packages, a check, the stamp
    packages.py   what is asked of pip, and whether what it installed is whole
    venv.py       a virtual environment from whatever this machine has
    lock.py       one builder at a time
    faults.py     from what pip said to one line that tells a person what to do
"""
