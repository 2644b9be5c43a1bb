"""What is durable: the journal of events, and LearnPack's document that is folded from it.

`journal` holds the records and the agent's facts (SQLite), `adoption` takes over what LearnPack itself wrote, `fold`
makes the document of both, `document_file` puts it into the course, `lock` lets one agent run per course.
"""
