"""The parts of the job queue: what a job is, the SQLite file it lies in, who runs it.

    jobs.py      a job, its states, the one guarded transition        database.py  the file: transactions, damage
    running.py   claim, heartbeat, finish, recovery                   schema.py    numbered migrations
    order.py     positions in the queue                               salvage.py   a damaged file is set aside
    history.py   search, retention                                    owners.py    is that process still alive?
    exchange.py  JSON in and out, grids                               facts.py     pause, options, notices

Functions whose first parameter is `db` run inside a transaction that the caller holds.
"""
