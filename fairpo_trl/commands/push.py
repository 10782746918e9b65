"""`fairpo push`: publishes a saved adapter, language model or classifier with its card, privately by default."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token
from rich.filesize import decimal

from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.core.options import option
from fairpo_trl.hub.compose import CardFacts, compose_card
from fairpo_trl.hub.contents import PlannedFile, saved_kind
from fairpo_trl.hub.push import PushPlan, check_repo_id, plan_push, upload
from fairpo_trl.hub.results import read_any_results


@dataclass
class PushArguments:
    """What is published where."""

    folder: str | None = option(None, "Saved adapter, language model or classifier; also given as first argument.")
    repo_id: str | None = option(None, "Repository on the Hub: owner/name.")
    private: bool = option(True, "Only you see the repository. `--private false` publishes it for everyone.")
    dry_run: bool = option(False, "Print every file with its size, and the card. Sends nothing.")
    merged: bool = option(
        False,
        "Merge the adapter into its base first (in a temporary folder), for users without PEFT. Needs "
        "the memory and disk of the whole model.",
    )
    results: str | None = option(
        None, "results.json of `fairpo evaluate` or of the training. Default: the one in the folder."
    )
    license: str | None = option(None, "Licence of these weights. Default: that of the base model's card, if known.")
    dataset: str | None = option(None, "Hub id or name of the training data. Default: what the card names.")
    dataset_license: str | None = option(None, "Licence of the training data.")
    revision: str | None = option(None, "Branch, created if needed. Default: main.")
    commit_message: str = option("Upload with fairpo push", "Message of the commit.")


def make_parser() -> CommandParser:
    """Parser of `fairpo push`."""
    return CommandParser(
        (PushArguments,),
        command="fairpo push",
        summary="Publish a saved adapter, language model or classifier with its card, privately by default.",
        examples=(
            "fairpo push out --repo_id me/concise-lora --dry_run",
            "fairpo push out --repo_id me/concise-lora --results evaluation/out/results.json",
            "fairpo push out --repo_id me/concise --merged --license apache-2.0 --private false",
        ),
        positional="folder",
    )


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    (args,) = make_parser().parse(arguments)
    run(args)


def run(args: PushArguments) -> PushPlan | None:
    """
    Plans the push and, unless it is a dry run, sends it; of several processes only the first does anything.

    Args:
        args ([`PushArguments`]):
            As parsed.

    Returns:
        [`PushPlan`], *optional*: what was sent, or would be; `None` on other processes than the first.

    Raises:
        ValueError: For options or a folder that cannot be pushed; see [`plan_push`].
        OSError: If a file is not there, nobody is logged in, or the Hub refuses or cannot be reached.
    """
    if int(os.environ.get("RANK", "0")) != 0:  # started by a launcher
        return None
    if args.folder is None:
        raise ValueError("Name the folder of the saved model: `fairpo push FOLDER --repo_id YOUR-NAME/NAME`.")
    repo_id, folder = check_repo_id(args.repo_id, args.folder), Path(args.folder)
    if not args.commit_message.strip():
        raise ValueError("`--commit_message` is empty: leave it out, or write what changed.")
    facts = CardFacts(args.license, args.dataset, args.dataset_license)
    kind = saved_kind(folder)
    if args.merged and kind != "adapter":
        raise ValueError(f"`--merged` merges an adapter into its base; {folder} holds a whole {kind}: leave it out.")
    beside = folder / "results.json"
    path = args.results or (beside if beside.is_file() else None)
    results = read_any_results(path, classifier=kind == "classifier") if path is not None else None
    if not args.dry_run and get_token() is None:
        raise OSError(
            "Nobody is logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token that may write. "
            "`--dry_run` needs none."
        )
    with ExitStack() as stack:
        if args.merged:
            # PEFT and transformers take seconds to load, and no other push needs them.
            from fairpo_trl.generation.merging import merge_adapter

            plan_push(folder, repo_id, "", private=args.private)  # the adapter is whole and holds nothing unsafe
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="fairpo-push-"))
            merged = merge_adapter(folder, Path(temporary) / "merged")
            card = compose_card(merged, "model", repo_id, results, facts, adapter=folder)
            plan = plan_push(merged, repo_id, card, private=args.private)
        else:
            card = compose_card(folder, kind, repo_id, results, facts)
            plan = plan_push(folder, repo_id, card, private=args.private)
        if args.dry_run:
            _print_plan(plan, path)
        else:
            address = upload(plan, revision=args.revision, commit_message=args.commit_message)
            visible = "private" if plan.private else "public"
            print(f"Pushed to {address} ({visible}): {len(plan.files)} files, {_size(plan.files)}.")
    return plan


def _print_plan(plan: PushPlan, results: str | Path | None) -> None:
    visible = "private" if plan.private else "PUBLIC"
    print(f"Would create (or update) the {visible} repository {plan.repo_id} with this {plan.kind}:")
    for file in plan.files:
        written = "  written for the Hub" if file.name == "README.md" else "  paths cut"
        note = written if isinstance(file.content, bytes) else ""
        print(f"  {_size([file]):>10}  {file.name}{note}")
    print(f"  {_size(plan.files):>10}  in {len(plan.files)} files")
    if plan.left_out:
        print(f"Stays here: {', '.join(plan.left_out)}")
    print(f"Results: {results if results is not None else 'none (`--results`)'}")
    print(f"Nothing was sent. The card:\n\n{plan.card}")


def _size(files: Sequence[PlannedFile]) -> str:
    return decimal(sum(file.size for file in files))
