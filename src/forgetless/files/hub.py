"""Files on the Hugging Face Hub: one is fetched, several are pushed in one commit; what goes wrong is a sentence.

The only place that knows `huggingface_hub`, which is imported at the first use. Its own settings hold: HF_ENDPOINT,
HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError, brief, quoted


def fetched(
    repo_id: str,
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The file `name` of a model repository, in the Hub's cache on this machine.

    Args:
        repo_id: "owner/name".
        name: the file.
        revision: a branch, a tag or a commit; None for the newest.
        token: of a login; None for the one that is stored here, False for none.
        cache_dir: where files are kept; None for the Hub's own place.
        local_files_only: use what is in the cache and ask nobody.

    Raises:
        ForgetlessError: no such repository, revision or file, a login that is missing or may not read it, or the Hub
            cannot be reached.
    """
    hub = _hub()
    with _told(repo_id, name, revision):
        return Path(
            hub.HfApi().hf_hub_download(
                repo_id,
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )


def exists(repo_id: str, name: str, *, revision: str | None = None, token: str | bool | None = None) -> bool:
    """Whether a model repository is there and has the file `name`.

    Raises:
        ForgetlessError: a login that is missing or may not read it, or the Hub cannot be reached.
    """
    hub = _hub()
    with _told(repo_id, name, revision):
        return bool(hub.HfApi().file_exists(repo_id, name, revision=revision, token=token))


def pushed(
    repo_id: str,
    paths: Mapping[str, Path],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    commit_message: str,
) -> str:
    """Put files into a model repository, which is made where it is not there yet, in one commit.

    Args:
        repo_id: "owner/name".
        paths: name in the repository → the file here.
        revision: the branch, made where it is not there yet; None for the main one.
        token: of a login; None for the one that is stored here.
        private: whether a repository that is made is private; None for the owner's default.
        commit_message: the commit's first line.

    Returns:
        The address of the commit.

    Raises:
        ForgetlessError: a login that is missing or may not write there, or the Hub cannot be reached.
    """
    hub = _hub()
    api = hub.HfApi()
    with _told(repo_id, ", ".join(paths), revision):
        api.create_repo(repo_id, token=token, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, token=token, exist_ok=True)
        added = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in paths.items()]
        commit = api.create_commit(repo_id, added, commit_message=commit_message, token=token, revision=revision)
        return str(commit.commit_url)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ForgetlessError(
            "the Hugging Face Hub needs the package huggingface_hub, which is not installed: "
            "pip install huggingface_hub."
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _told(repo_id: str, name: str, revision: str | None) -> Iterator[None]:
    """Inside, what the Hub's client raises becomes a sentence."""
    try:
        yield
    except ForgetlessError:
        raise
    except Exception as error:  # of whatever the client is made of
        raise ForgetlessError(_sentence(error, repo_id, name, revision)) from error


def _sentence(error: Exception, repo_id: str, name: str, revision: str | None) -> str:
    """The first that fits: the client's errors are kinds of each other."""
    kinds, repo = importlib.import_module("huggingface_hub.errors"), quoted(repo_id)
    login = "log in with `hf auth login` or pass token="
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = {
        kinds.HFValidationError: f"{repo} is neither a folder here nor a repository's name on the Hub: 'owner/name'.",
        kinds.LocalTokenNotFoundError: f"{repo} needs a login to the Hub and there is none here: {login}.",
        kinds.GatedRepoError: f"{repo} is gated: ask for access on its page, then {login}.",
        kinds.RevisionNotFoundError: f"{repo} has no revision {quoted(revision)}; name a branch, a tag or a commit.",
        kinds.RepositoryNotFoundError: f"there is no repository {repo} on the Hub that this login may see; "
        f"check the name, or {login}.",
        kinds.LocalEntryNotFoundError: f"{quoted(name)} of {repo} is not in the cache and the Hub was not reached: "
        "check the connection, HF_ENDPOINT, HF_HUB_OFFLINE and local_files_only=.",
        kinds.EntryNotFoundError: f"{repo} has no file {quoted(name)}"
        + (f" at revision {quoted(revision)}." if revision else "."),
        kinds.HfHubHTTPError: f"this login may not do that with {repo} on the Hub (HTTP {status}): {login} that may."
        if status in (401, 403)
        else f"the Hub refused a request about {repo}: {brief(error)}.",
        Exception: f"the Hub could not be asked about {repo}: {brief(error)}.",
    }
    return next(sentence for kind, sentence in said.items() if isinstance(error, kind))
