"""A stand-in for LearnPack, a scripted student, and the score of what the agent concluded.

Nothing here is LearnPack's code.  It is written from measurements of what the real LearnPack (CLI 2.1.34, python
plugin 1.0.4, node plugin 1.1.13) leaves on the disk and in the process table, with its defects, because the agent
has to live with those.

server.py        the process that looks like `node …/bin/learnpack start`: a JSON line an action, a JSON line a truth
launchers.py     the two programs between the server and a run: `box` and `exec-child.js`
shelljs.py       how the server runs a command and waits: orders and output in temporary files
texts.py         the files that it lays down
telemetry.py     the telemetry.json that LearnPack itself writes, in its format, defects included
toolbox.py       the directories on PATH: a fake `node`, a student's Python, pytest, linters, pyenv-like shims, jest
learnpack.py     starts the server, asks it for actions, collects the truth
courses.py       small courses of our own
student.py       an interactive bash on a pseudo-terminal, and editors
agent.py         the real agent: started, awaited, stopped, asked for its events
score.py         the agent's events against the truth
"""
