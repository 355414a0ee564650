"""What is known of a dataset before its files are there, and how its files are asked what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.model.parameters import listing

Parts = tuple[Pictures, Pictures]
_MOST_BYTES = 64 << 20  # of a list of pictures


@dataclass(frozen=True)
class Source:
    """A file that can be downloaded.

    Attributes:
        url: from where.
        path: to where, in the root.
        checksum: "sha256:…" or "md5:…" as published; None where none is, so that the file is unpinned.
        unpack: the folder of the root that an archive is unpacked in, "" for the root; None to leave it as it is.
    """

    url: str
    path: str
    checksum: str | None = None
    unpack: str | None = None


@dataclass(frozen=True)
class Entry:
    """A dataset in the catalog.

    Attributes:
        name: what it is called on the command line.
        title: what its authors call it.
        folder: where its files are, in the root of all datasets.
        layout: what must be there, inside the root.
        classes: how many there are; None where that is not published.
        train: how many training pictures there are; None where that is not published.
        test: the same for the test pictures.
        license: what its authors allow, as far as known.
        page: where it is described.
        read: the dataset's folder → its training and test pictures, not decoded.
        sources: what to download; empty where the host allows no direct download.
        otherwise: how to get it where no download is direct, a clause.
        listing: the first 16 digits of the checksum of its complete listing; None where it is not known.
    """

    name: str
    title: str
    folder: str
    layout: str
    classes: int | None
    train: int | None
    test: int | None
    license: str
    page: str
    read: Callable[[Path], Parts]
    sources: tuple[Source, ...] = ()
    otherwise: str = ""
    listing: str | None = None

    def unpinned(self) -> list[Source]:
        """Its files that nobody published a checksum of, so that what arrives cannot be compared with anything."""
        return [source for source in self.sources if source.checksum is None]

    def path(self, root: str | Path) -> Path:
        """Its folder in `root`."""
        return Path(root) / self.folder

    def obtain(self, root: str | Path) -> str:
        """How to get it, as the end of a sentence."""
        if self.sources:
            return f"`forgetless data fetch {self.name} --root {root}` downloads it ({self.page})"
        return f"it cannot be downloaded directly: {self.otherwise} ({self.page})"

    def load(self, root: str | Path) -> Parts:
        """Its training and test pictures, checked against what is known of the dataset; not decoded.

        Raises:
            ForgetlessError: `root` lacks it (naming what and how to get it), it is there in part only, a file of it
                lies elsewhere, or its classes, labels or counts are not what they should be.
        """
        with files.told(root, "read"):
            if not self.path(root).is_dir():
                raise ForgetlessError(f"{root} lacks {self.title}: {self.layout}; {self.obtain(root)}.")
            parts = self.read(self.path(root))
        for complaint in self.complaints(parts, self.path(root)):
            raise ForgetlessError(f"{self.path(root)}: {complaint}; unpack {self.title} again, or {self.obtain(root)}.")
        return parts

    def complaints(self, parts: Parts, folder: Path) -> Iterator[str]:
        """What is not as it should be in its folder, a clause each."""
        inside = files.Inside(folder)
        for part, known, what in zip(parts, (self.train, self.test), ("training", "test"), strict=True):
            if self.classes is not None and len(part.classes) != self.classes:
                yield f"it has {len(part.classes)} classes and not {self.classes}"
            wrong = [(name, why) for name, here in _files(part) if (why := inside.complaint(here))]
            missing = [name for name, why in wrong if why == files.MISSING]
            if missing:
                yield (
                    f"it is unpacked only in part, {len(missing)} of its {len(part.names)} {what} pictures "
                    f"are missing, {listing(missing, most=1)}"
                )
            for name, why in wrong:
                yield f"its {what} picture {quoted(name)} cannot be read: {why}"
            if known is not None and len(part.labels) != known:
                yield f"it has {len(part.labels)} {what} pictures and not {known}"

    def sum(self, parts: Parts) -> str:
        """The first 16 digits of the checksum of both listings."""
        return parts[0].listing()[:8] + parts[1].listing()[:8]


def _files(part: Pictures) -> Iterator[tuple[str, Path]]:
    for picture, name in zip(part.pictures, part.names, strict=True):
        path = getattr(picture, "path", picture)
        if isinstance(path, Path):
            yield name, path


def lines(path: Path, fields: int) -> Iterator[tuple[int, list[str]]]:
    """The lines of a list that are not empty, with their numbers; the last field may hold spaces.

    Raises:
        ForgetlessError: the file is missing, no text, or a line has fewer fields.
    """
    try:
        text = files.read_bytes(path, _MOST_BYTES).decode("utf-8")
    except (ForgetlessError, UnicodeDecodeError) as error:
        raise ForgetlessError(f"the pictures are listed in a file that cannot be read: {brief(error)}.") from error
    for number, line in enumerate(text.splitlines(), 1):
        found = line.split(maxsplit=fields - 1)
        if found and len(found) < fields:
            raise ForgetlessError(f"{path} is damaged: line {number} has {len(found)} fields and not {fields}.")
        if found:
            yield number, found


def label(text: str, classes: int, where: str) -> int:
    """A class counted from 1, as a label counted from 0.

    Raises:
        ForgetlessError: it is no number from 1 to `classes`.
    """
    try:
        found = int(text)
    except ValueError:
        found = 0
    if not 1 <= found <= classes:
        raise ForgetlessError(f"{where} has the class {quoted(text)[1:-1]}, which is outside 1…{classes}.")
    return found - 1


def checked(labels: Sequence[int], classes: Sequence[str], where: str) -> None:
    """Refuse labels outside the classes.

    Raises:
        ForgetlessError: naming the first.
    """
    for number, each in enumerate(labels, 1):
        if not 0 <= each < len(classes):
            raise ForgetlessError(
                f"picture {number} of {where} has the class {quoted(each + 1)}, outside 1…{len(classes)}."
            )


def attempt(read: Callable[[], Parts], path: Path, needs: str, opens: Sequence[str] = ()) -> Parts:
    """What `read`, which is torchvision's, gives.

    Args:
        read: reads the dataset.
        path: its folder.
        needs: what must be there, for a sentence.
        opens: the files that torchvision opens there; those that are there must be regular files inside.

    Raises:
        ForgetlessError: it refuses what is in `path`, or needs a package that is not installed.
    """
    inside = files.Inside(path)
    for name in opens:
        if (why := inside.complaint(path / name)) not in (None, files.MISSING):
            raise ForgetlessError(f"{path / name} cannot be read: {why}.")
    try:
        return read()
    except ImportError as error:
        raise ForgetlessError(f"{path} needs torchvision and SciPy: pip install 'forgetless[vision]' scipy.") from error
    except ForgetlessError:
        raise
    except Exception as error:
        raise ForgetlessError(f"{path} is not complete or damaged ({brief(error)}); there must be {needs}.") from error
