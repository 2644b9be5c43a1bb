"""What the agent costs, measured beside what it replaces: `python -m tests.bench [NAME...]`, from the repository.

`idle`, `latency`, `journal`, `storm`, `many`, `catch` and `delivery` print a table or two each.  Promised: every figure
stands beside its peer or its floor, measured in the same run and turn by turn with it, so that a busy or a slow machine
weighs on both; medians, and the ratio.  No figure is a promise by itself.  The real agent is measured as its own
process, from outside, with what the kernel knows of it (`kernel.py`); `delivery` measures its courier alone.  pytest
collects nothing here.

The peers: chokidar, which is LearnPack's watcher, and LearnPack's way to write its document, both in node (left out,
and said so, where node or npm is missing).  The floors: a Python that does nothing, one that only listens
(`floor.py`), a bare write with fdatasync, and a loop of `requests.Session().post`.

Known to be weak: on a machine where other programs run the same Python, PSS and USS look smaller than they are, and
RSS does not; a listener to processes is woken by every program of the machine, so those are counted too.
"""
