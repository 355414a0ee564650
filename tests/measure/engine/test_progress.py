"""A progress bar where there is a terminal, and silence elsewhere."""

from __future__ import annotations

import pytest

from forgetless.measure.engine.progress import shown


@pytest.mark.parametrize("progress", [False, True])
def test_nothing_is_written_where_there_is_no_terminal(progress: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with shown(progress) as advance:
        advance(3)
    written = capsys.readouterr()
    assert (written.out, written.err.strip()) == ("", "")
