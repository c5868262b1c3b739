"""What the recorder keeps: the ledger of calls, the requests, the agents, in SQL.

A call is one row by the call's id, a request one by its agent and id, anything else one by its event's id.
Rows are merged from events so that their order and repetition change nothing: entering an event twice is
entering it once. SQLAlchemy is an extra; nothing outside this package imports it.
"""
