"""What `doctor` looks at: small functions of a `Place`, each with one `Finding`.  The table of them is `agent.doctor`.

They only look: no file is made, no event sent, and what a command of the system is asked changes nothing.  Each may
take its time, or hang in a dead file system: `doctor` has them side by side and waits for none for long.
"""
