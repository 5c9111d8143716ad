"""The errors a user meets."""


class LazyneuronError(Exception):
    """A failure with one line for the user: it names the thing, the value and the mend."""


class UsageError(LazyneuronError):
    """What was asked cannot be done: another argument, file or folder mends it."""


class StoppedError(LazyneuronError):
    """The user stopped it; what it had is saved."""
