"""Benchmark: fastconv against other libraries, each in a process of its own.

``python -m fastconv bench SUITE`` runs it. The data goes one way::

    problems/*.txt -> cases.py -> runner.py -> report.py
                                  |     ^
                                  v     |      one process a library, all but one stopped
                                 worker.py -> peers.py, truth.py

Rows of another kind have peers and truths of their own, as registry.py lists them; ``networks/``
are whole networks, whose rows have processes of their own (network_worker.py).

``pytest bench/ --benchmark-only`` times the project's own kernels alone, for regressions.
"""
