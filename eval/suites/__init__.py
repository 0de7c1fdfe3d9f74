"""Other suites of tasks: one adapter file each, here or anywhere; their tasks are called `<suite>:<task>`.

An adapter is a module that defines `SUITE`, a `eval.suites.adapter.Suite`. It is found by its file name here
(`metaworld:drawer-open-v3`), or by the path of a file of one's own (`my_suite.py:lift`). It imports no more than
gymnasium, numpy and what it adapts, so that it can run in another Python environment: a suite whose dependencies do not
fit beside ours gets a process of its own (`suite_python`, `eval.suites.process`).
"""
