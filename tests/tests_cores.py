"""Of several processes that run tests each has its part of the cores, and what it starts inherits that. Threads of
several that wait for one core cost more than they bring."""

import os

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _mine, _count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, _cores[_mine % len(_cores) :: _count])
