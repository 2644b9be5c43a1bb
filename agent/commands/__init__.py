"""The commands, each group in a file: `delivery` (and what may be recorded), `managing` which courses have an agent and
`controlling` what it does now, `table` how all fare, `health`, `configuration`, `completion`; `common` is what all
share.  `agent.cli` puts them together, and has those that show one course.
"""
