"""The error for what a user can mend on the command line or in a config."""


class UserError(ValueError):
    """Says in one message what is wrong and what would be right; shown without a traceback."""
