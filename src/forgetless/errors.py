"""The one exception that users meet, and how its sentences quote what somebody else wrote."""

from collections.abc import Iterable

_MOST = 80  # characters of a foreign value in a sentence


class ForgetlessError(ValueError):
    """What was asked cannot be done.

    The message is one clear sentence: what is wrong, where, and what to do about it. Whoever raises
    it has changed and written nothing. The command line prints the sentence and exits with code 2.
    """


def quoted(value: object, most: int = _MOST) -> str:
    """A foreign value for a sentence: like `repr`, in at most `most` printable characters on one line.

    Never raises, whatever the value's own `repr` does, and never calls it for more than what is shown of a long string
    or an integer of many digits.
    """
    try:
        text = _written(value, most)
    except Exception:  # a foreign `__repr__`
        text = f"<{type(value).__name__}>"
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _written(value: object, most: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"  # Python refuses to print very long ones
    if type(value) is str or type(value) is bytes:
        whole = repr(value[: most + 1])
        return whole if len(value) <= most else whole[:-1]  # no closing quote where the rest is missing
    return repr(value)


def brief(error: BaseException, most: int = 200) -> str:
    """The first line of a foreign exception for a sentence, without its last period; the kind where it says nothing."""
    try:
        lines = str(error).splitlines()
    except Exception:
        lines = []
    text = (lines or [""])[0].strip().rstrip(".") or type(error).__name__
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def listing(names: Iterable[str], most: int = 6) -> str:
    """`'a', 'b' and 7 more`: names for an error message."""
    names = [quoted(name, 200) for name in names]
    rest = len(names) - most
    if rest > 0:
        return ", ".join(names[:most]) + f" and {rest} more"
    return ", ".join(names) or "none"
