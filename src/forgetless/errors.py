"""The one exception of the house."""


class ForgetlessError(ValueError):
    """What was asked cannot be done.

    The message is one clear sentence: what is wrong, where, and what to do about it. Whoever raises
    it has changed and written nothing. The command line prints the sentence and exits with code 2.
    """
