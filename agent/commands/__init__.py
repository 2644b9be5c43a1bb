"""The commands, each group in a file: `delivery` (and what may be recorded), `managing`, `health`, `configuration`,
`completion`; `common` is what all share.  `agent.cli` puts them together, and has those that show one course.
"""
