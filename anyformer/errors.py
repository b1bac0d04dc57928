"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a field of a record, a key of a config.

    The message is one line that names the file and field, what was needed, what arrived and what to do. The command
    line prints it without a traceback and exits with code 2.
    """
