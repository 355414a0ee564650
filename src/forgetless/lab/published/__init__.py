"""Published numbers, to be shown beside ours; a paper a file."""

from collections.abc import Mapping

Figure = tuple[float, float | None]  # a mean in percent, and its standard deviation where that is known
Published = Mapping[str, Mapping[str, Figure]]  # scenario → our name of the method → its accuracy
