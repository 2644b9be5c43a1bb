"""A stand-in for LearnPack, a scripted student, and the score of what the agent concluded.

Nothing here is LearnPack's code.  It is written from measurements of what the real LearnPack (CLI 2.1.34, the plugins
python 1.0.4, node 1.1.13, html 1.1.7, react 1.1.15, dom 1.1.7) leaves on the disk and in the process table, with its
defects, because the agent has to live with those.

commands.py      the program `learnpack`, a JSON line an action, a JSON line a truth
server.py        the process that looks like `node …/bin/learnpack start`: its life and its own files
actions.py       what a student can ask it for
layout.py        how it reads a course
programs.py      builds that start programs: Python, Node, Java
websites.py      builds without a process: HTML, React, plain pages
formatting.py    our own formatters, in the place of prettier
launchers.py     the two programs between the server and a run: `box` and `exec-child.js`
shelljs.py       how the server runs a command and waits: orders and output in temporary files
texts.py         the files that it lays down
telemetry.py     the telemetry.json that LearnPack itself writes, in its format, defects included
telemetry_file.py  how that file is written, and what can go wrong with it
session.py       a student's login
tab.py           LearnPack's UI of version 5, which keeps the telemetry itself and posts it
toolbox.py       the directories on PATH: a fake `node`, a student's Python, pytest, linters, pyenv-like shims, jest
learnpack.py     starts the server, asks it for actions, collects the truth
courses.py       small courses of our own
student.py       an interactive bash on a pseudo-terminal, and editors
agent.py         the real agent: started, awaited, stopped, asked for its events
score.py         the agent's events against the truth
"""
