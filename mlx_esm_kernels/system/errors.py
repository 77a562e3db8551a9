"""The errors that a person can do something about."""

from __future__ import annotations


class UserError(ValueError):
    """What went wrong lies with what was given, or with the machine: not with this package.

    The message is a sentence for the person: where, what was expected, what came, what to do. The
    commands show it as it is; any other error is a bug of ours, and is called one.
    """


class DataError(UserError):
    """Something about the data, or the folder in which it is kept, that its owner has to know."""
