"""How a demo ends before its table.

::

    Exception
    ├── DemoFailed      one sentence for people, with the remedy; exit status 1
    │   └── Unusable    an option or a file cannot be used; exit status 2
    └── Interrupted     Ctrl-C or SIGTERM; exit status 130
"""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


class Unusable(DemoFailed):
    """What it was told cannot be used: an option, a trace, a provider without a key."""


class Interrupted(Exception):
    """It was asked to stop."""
