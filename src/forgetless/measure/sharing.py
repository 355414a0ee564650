"""`Shared`: an importance as others find it, in a folder or on the Hugging Face Hub, with its card.

The names and arguments are those of huggingface_hub's `ModelHubMixin`. That package is known to `files.hub` only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files import hub
from forgetless.measure.card import FRONT, Card
from forgetless.measure.confidence import Confidence
from forgetless.model import sharding
from forgetless.model.parameters import fingerprint, listing, named, unwrapped

_FILE, _CARD = "importance.safetensors", "README.md"
_Found = TypeVar("_Found", bound="Shared")


class Shared:
    """What `Importance` can do beside being saved and loaded; its attributes are described there."""

    sums: dict[str, Tensor]
    count: float
    estimator: str
    weights: dict[str, str]
    unused: tuple[str, ...]
    confidence: Confidence | None

    def save(self, path: str | Path) -> None:
        """Write the file `path`."""
        raise NotImplementedError

    @classmethod
    def load(cls: type[_Found], path: str | Path) -> _Found:
        """Read what `save` wrote."""
        raise NotImplementedError

    def differing(self, model: nn.Module) -> tuple[str, ...]:
        """The parameters whose weights in `model` are not those that were measured; empty where all of them are.

        Of a sharded model every rank must ask.

        Raises:
            ForgetlessError: it has no fingerprints, since the weights moved while it was measured.
        """
        if not self.weights:
            raise ForgetlessError(
                "this importance has no fingerprints of weights to compare with: they moved while it was measured."
            )
        found = named(sharding.resharded(unwrapped(model)))
        return tuple(n for n, mark in self.weights.items() if n not in found or fingerprint(found[n]) != mark)

    def save_pretrained(
        self, save_directory: str | Path, *, base_model: str | None = None, data: str | None = None
    ) -> None:
        """Write `importance.safetensors` and its card, README.md, into a folder, which is made where it is missing.

        Args:
            save_directory: the folder.
            base_model: the model that was measured: its repository on the Hub, or another name.
            data: what it was measured on, in words.

        Raises:
            ForgetlessError: the files cannot be written.
        """
        self._write(Path(save_directory), "OWNER/NAME", base_model, data)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        base_model: str | None = None,
        data: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        commit_message: str = "Upload importance",
    ) -> str:
        """Put what `save_pretrained` writes into a repository of the Hugging Face Hub, in one commit.

        A README.md there that is no card of an importance, such as the model's own, is left as it is.

        Args:
            repo_id: "owner/name"; made where it is not there yet.
            base_model: the model that was measured: its repository on the Hub, or another name.
            data: what it was measured on, in words.
            revision: the branch, made where it is not there yet; None for the main one.
            token: of a login; None for the one that is stored here.
            private: whether a repository that is made is private; None for the owner's default.
            commit_message: the commit's first line.

        Returns:
            The address of the commit.

        Raises:
            ForgetlessError: huggingface_hub is not installed, a login that is missing or may not write there, or the
                Hub cannot be reached.
        """
        names = [_FILE] if _has_other_card(repo_id, revision, token) else [_FILE, _CARD]
        with tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), repo_id, base_model, data)
            paths = {name: Path(folder) / name for name in names}
            return hub.pushed(
                repo_id, paths, revision=revision, token=token, private=private, commit_message=commit_message
            )

    @classmethod
    def from_pretrained(
        cls: type[_Found],
        repo_id: str | Path,
        *,
        model: nn.Module | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> _Found:
        """Read what `push_to_hub` or `save_pretrained` wrote.

        Args:
            repo_id: "owner/name" on the Hugging Face Hub, or a folder here.
            model: the model that it is for; refused unless it has the weights that were measured.
            revision: a branch, a tag or a commit; None for the newest.
            token: of a login; None for the one that is stored here, False for none.
            cache_dir: where downloads are kept; None for the Hub's own place.
            local_files_only: use what was downloaded before and ask nobody.

        Raises:
            ForgetlessError: there is no such folder, repository, revision or file, it is damaged or holds something
                else, the Hub cannot be reached, or `model` has other weights.
        """
        if Path(repo_id).is_dir():
            path = Path(repo_id) / _FILE
        elif isinstance(repo_id, Path):
            raise ForgetlessError(f"{repo_id} is no folder; name the one that save_pretrained() wrote.")
        else:
            path = hub.fetched(
                repo_id, _FILE, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
            )
        found = cls.load(path)
        if model is not None and (names := found.differing(model)):
            raise ForgetlessError(
                f"the importance in {repo_id} was measured at other weights than the model has: {listing(names)}; load "
                "the model that its card names, or measure this one."
            )
        return found

    def _write(self, folder: Path, place: str, base_model: str | None, data: str | None) -> None:
        errors = None if self.confidence is None else self.confidence.error(self.sums, self.count)
        sizes = {name: total.numel() for name, total in self.sums.items()}
        card = Card(self.estimator, self.count, sizes, self.unused, self.weights, errors, base_model, data, place=place)
        self.save(folder / _FILE)
        files.write_text(folder / _CARD, card.text())


def _has_other_card(repo_id: str, revision: str | None, token: str | bool | None) -> bool:
    """Whether a repository has a README.md that is no card of an importance."""
    if not hub.exists(repo_id, _CARD, revision=revision, token=token):
        return False
    return not files.read_bytes(hub.fetched(repo_id, _CARD, revision=revision, token=token)).startswith(FRONT.encode())
