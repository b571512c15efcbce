"""Which process runs a job, and whether it lives."""

from __future__ import annotations

import dataclasses
import os

import pytest
from deforum_helpers.queue_store import owners
from deforum_helpers.queue_store.owners import Owner, Witness


def test_a_process_is_its_pid_and_its_start():
    here = owners.this_process()
    witness = Witness()
    assert here.started and witness.lives(here, "c", 0.0)
    assert not witness.lives(dataclasses.replace(here, started="another boot:1"), "c", 0.0)
    assert not witness.lives(dataclasses.replace(here, pid=2**22 + 1), "c", 0.0)
    assert Owner.from_text(here.to_text()) == here
    assert Owner.from_text("") is None and Owner.from_text("[]") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_zombie_is_dead():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert owners.start_of_process(pid) == ""
    os.waitpid(pid, 0)


def test_ps_tells_the_same_as_proc():
    assert owners._start_by_ps(os.getpid())
    assert owners._start_by_ps(2**22 + 1) == ""


def test_a_foreign_process_is_judged_by_its_heartbeat_and_our_clock():
    now = [0.0]
    witness = Witness(lease_seconds=60, clock=lambda: now[0])
    far = Owner("elsewhere", 1, "x")
    beats = [(0, 5.0, True), (59, 5.0, True), (61, 5.0, False)]
    for now[0], heartbeat, alive in beats:
        assert witness.lives(far, "a", heartbeat) is alive
    for now[0], heartbeat, alive in [(100, 9.0, True), (150, -3.0, True), (200, -3.0, True), (211, -3.0, False)]:
        assert witness.lives(far, "b", heartbeat) is alive
    witness.forget_all_but({"a"})
    assert witness.lives(far, "b", -3.0)


def test_an_owner_the_system_tells_nothing_of_is_judged_by_its_heartbeat():
    now = [0.0]
    witness = Witness(lease_seconds=60, clock=lambda: now[0], start_of=lambda pid: None)
    assert witness.lives(owners.this_process(), "a", 1.0)
    now[0] = 61
    assert not witness.lives(owners.this_process(), "a", 1.0)
