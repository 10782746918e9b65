"""Pushes to the Hub: what would be sent, and sending it. Every way of pushing a model goes through here."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from fairpo_trl.hub.card import public_readme
from fairpo_trl.hub.contents import (
    Kind,
    PlannedFile,
    checkpoint_files,
    has_tokenizer,
    model_files,
    refuse_private,
    saved_kind,
)
from fairpo_trl.training.checkpoints import checkpoint_step, mark_complete


_STATUS = {
    401: "does not know the token (401): log in again with `hf auth login`, or correct HF_TOKEN",
    403: "lets this token not write there (403): it needs the right to write, and its owner must belong to the "
    "organisation {owner!r}",
    404: "does not find it (404): is {owner!r} your name or organisation, and may the token see it?",
    413: "finds the upload too large (413)",
    429: "has had too many requests (429): try again in some minutes",
}


@dataclass(frozen=True)
class PushPlan:
    """
    A push, ready to be looked at or sent.

    Attributes:
        repo_id (`str`): Hub id of the repository.
        private (`bool`): Whether only its owner may see it.
        kind (`str`): `"adapter"`, `"model"` or `"classifier"`.
        files (`tuple[PlannedFile, ...]`): What is sent, the card among it, by name.
        card (`str`): `README.md`.
        left_out (`tuple[str, ...]`): Names in the folder that stay on this machine; folders end in a slash.
    """

    repo_id: str
    private: bool
    kind: Kind
    files: tuple[PlannedFile, ...]
    card: str
    left_out: tuple[str, ...]


def plan_push(folder: str | os.PathLike[str], repo_id: str | None, card: str, *, private: bool = True) -> PushPlan:
    """
    Plans a push; reads the folder, writes and sends nothing.

    Args:
        folder (`str` or `os.PathLike`):
            A saved adapter, language model or `MultiLabelClassifier`; a checkpoint of a run is one too.
        repo_id (`str`, *optional*):
            `owner/name`; required, `None` gives the error that says so.
        card (`str`):
            The card with its front matter; `compose_card` writes it.
        private (`bool`, *optional*, defaults to `True`):
            Whether only its owner may see the repository.

    Raises:
        FileNotFoundError: If there is no such folder, or weights are missing.
        ValueError: If the folder is not a saved model or not a whole one, holds files that run code when they are
            loaded, or something private would be published; names the file and the mend.
    """
    repo_id, folder = check_repo_id(repo_id, folder), Path(folder)
    kind = saved_kind(folder)
    if kind == "model" and not has_tokenizer(folder):
        raise FileNotFoundError(f"{folder} has no tokenizer: save it there (`tokenizer.save_pretrained(...)`).")
    files = [PlannedFile("README.md", card.encode()), *model_files(folder, kind)]
    refuse_private(files, folder)
    sent = {Path(file.name).parts[0] for file in files}
    left_out = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir() if path.name not in sent)
    return PushPlan(repo_id, private, kind, tuple(sorted(files, key=lambda file: file.name)), card, tuple(left_out))


def check_repo_id(repo_id: str | None, folder: str | os.PathLike[str]) -> str:
    """
    A repository the Hub can have.

    Raises:
        ValueError: If it is missing, without an owner, or not a name for the Hub; proposes one.
    """
    wanted = (repo_id or "").rpartition("/")[2] or Path(folder).resolve().name
    name = re.sub(r"[^\w.-]+|--+|\.\.+", "-", wanted).strip("-.")
    owner = re.sub(r"[^\w-]+", "-", (repo_id or "").rpartition("/")[0]).strip("-") or "YOUR-NAME"
    proposal = f"{owner}/{name[:90] or 'model'}"
    if not repo_id:
        raise ValueError(f"Name the repository on the Hub: `--repo_id {proposal}`.")
    if repo_id.count("/") != 1:
        raise ValueError(
            f"`--repo_id` is the owner and the name, got {repo_id!r}: for example `--repo_id {proposal}`."
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise ValueError(
            f"`--repo_id` {repo_id!r} cannot be a name on the Hub (letters, digits, '-', '_', '.', at most 96 "
            f"characters): for example `--repo_id {proposal}`."
        ) from None
    return repo_id


def upload(plan: PushPlan, *, revision: str | None = None, commit_message: str = "Upload with fairpo push") -> str:
    """
    Creates the repository if it is not there, uploads the files of a plan and no others, and returns its address.

    Args:
        plan ([`PushPlan`]):
            What to send.
        revision (`str`, *optional*):
            Branch, created if needed; `None` is `main`.
        commit_message (`str`, *optional*, defaults to `"Upload with fairpo push"`):
            Message of the commit.

    Raises:
        ValueError: If the repository exists and everyone sees it, while the plan is private.
        OSError: If the Hub refuses or cannot be reached; one line with the mend.
    """
    api, owner = HfApi(), plan.repo_id.partition("/")[0]
    try:
        address = api.create_repo(plan.repo_id, private=plan.private, exist_ok=True)
        # For a repository that exists already, `private` was without effect.
        if plan.private and not api.model_info(plan.repo_id).private:
            raise ValueError(
                f"{plan.repo_id} exists and is public: pass `--private false` to publish there for everyone, or "
                "another `--repo_id`. Nothing was uploaded."
            )
        if revision is not None:
            api.create_branch(plan.repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fairpo-push-") as temporary:
            stage(plan.files, Path(temporary))
            api.upload_folder(
                repo_id=plan.repo_id,
                folder_path=temporary,
                revision=revision,
                commit_message=commit_message,
                allow_patterns=[file.name for file in plan.files],
            )
    except OfflineModeIsEnabled:
        raise OSError("HF_HUB_OFFLINE is set: unset it to push, or look at the push with `--dry_run`.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        told = _STATUS.get(status, "failed ({status}): try again later").format(owner=owner, status=status)
        said = " ".join((error.server_message or "").split())[:200]
        raise OSError(f"Push to {plan.repo_id}: the Hub {told}." + (f" It says: {said}" if said else "")) from error
    except HTTPError as error:  # no answer at all
        raise OSError(f"The Hub at {api.endpoint} cannot be reached ({type(error).__name__}).") from error
    return str(address)


def stage(files: Sequence[PlannedFile], folder: Path, *, keep: bool = False) -> None:
    """
    The repository as a folder, empty before: what is sent, and nothing else.

    `keep`: whether the content must outlast the local files, as for an upload in the background.
    """
    for file in files:
        target = folder / file.name
        target.parent.mkdir(exist_ok=True)
        if isinstance(file.content, bytes):
            target.write_bytes(file.content)
            continue
        try:
            # A second name of the same content costs no space, and lives on when a checkpoint is deleted.
            os.link(file.content, target) if keep else target.symlink_to(file.content.resolve())
        except OSError:  # a system without links, or another disk
            shutil.copyfile(file.content, target)


def push_from_trainer(
    trainer: Any,
    folder: str | os.PathLike[str],
    commit_message: str,
    *,
    blocking: bool,
    token: str | None = None,
    revision: str | None = None,
    checkpoint_as: str | None = None,
) -> Any:
    """
    Uploads what may leave of a folder that a trainer saved: the model and its card, or a checkpoint to go on from.

    Args:
        trainer ([`~transformers.Trainer`]):
            Its `hub_model_id` is the repository, which exists.
        folder (`str` or `os.PathLike`):
            Where it saved; the card is that of its `output_dir`.
        commit_message, token, revision (`str`):
            As for the Hub; the latter two are those of the arguments by default.
        blocking (`bool`):
            Whether to return only once everything is sent.
        checkpoint_as (`str`, *optional*):
            Folder in the repository for the checkpoint; `None` sends the model alone.

    Returns:
        What `HfApi.upload_folder` returns: a commit, or a future of one.

    Raises:
        FileNotFoundError: If there are no weights in safetensors.
        ValueError: If something private would be published; see [`refuse_private`].
    """
    folder, output = Path(folder), Path(trainer.args.output_dir)
    kind = saved_kind(folder)
    if checkpoint_as is None:
        files = model_files(folder, kind)
        if (output / "README.md").is_file():
            files.insert(0, PlannedFile("README.md", public_readme(output / "README.md").encode()))
    else:
        files = checkpoint_files(folder, kind)
    refuse_private(files, folder)
    with ExitStack() as stack:
        # On the disk of the model, so that its content gets a second name instead of a copy.
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix=".hub-", dir=output))
        stage(files, Path(temporary), keep=checkpoint_step(folder) is not None)
        if checkpoint_as is not None:
            mark_complete(temporary)  # of what is sent: paths were cut, arguments stay here
        api: Any = HfApi()  # its overloads know `run_as_future` only as a literal
        sent = api.upload_folder(
            repo_id=trainer.hub_model_id,
            folder_path=temporary,
            path_in_repo=checkpoint_as,
            commit_message=commit_message,
            token=token or trainer.args.hub_token,
            run_as_future=not blocking,
            revision=revision or trainer.args.hub_revision,
        )
        if isinstance(sent, Future):  # the folder outlasts this call
            later = stack.pop_all()
            sent.add_done_callback(lambda _: later.close())
    return sent
