"""No altered file may cause anything but what was written, or one sentence, nor write elsewhere: every reader."""

from __future__ import annotations

import pytest
from hypothesis import given

from altered import contents, fuzzed
from readers import READERS

pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.mark.parametrize("name", READERS)
def test_an_altered_file_is_read_or_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    reader = READERS[name]

    @fuzzed
    @given(contents(list(reader.good())))
    def each(content: bytes) -> None:
        reader.read(content, tmp_path_factory.mktemp("altered"))

    each()
