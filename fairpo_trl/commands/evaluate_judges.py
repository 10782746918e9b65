"""The judges of `fairpo evaluate`: their options, and the judges themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairpo_trl.core.options import check_number, option
from fairpo_trl.evaluation.http import check_address, host_of, keys_by_host
from fairpo_trl.evaluation.judges import KINDS, Judge, JudgeSpec, parse_descriptions
from fairpo_trl.evaluation.llm_judge import Answerer, HttpAnswerer, LlmJudge, LocalAnswerer
from fairpo_trl.evaluation.models import ModelSource, find_model
from fairpo_trl.evaluation.score_judges import ClassifierJudge, CountJudge, PythonJudge


@dataclass
class JudgeArguments:
    """Who judges which attribute, and how endpoints are asked."""

    judges: list[str] | None = option(
        None,
        "ATTRIBUTE=KIND:TARGET for each attribute, `all` for every one; a second entry is a second judge. "
        "Kinds: " + "; ".join(KINDS.values()) + ".",
    )
    descriptions: list[str] | None = option(None, "ATTRIBUTE=what it means, for judges that are language models.")
    judge_api_key_env: list[str] | None = option(
        None,
        "NAME of the environment variable with the key of an endpoint; with endpoints on several hosts, "
        "HOST=NAME for each that needs a key. A key is sent to its host alone, over https or within this machine.",
    )
    judge_max_tokens: int = option(256, "Longest answer of a language model, in tokens.")
    judge_timeout: float = option(60.0, "Seconds after which a request is given up.")
    judge_attempts: int = option(5, "Attempts per question, with growing pauses.")
    judge_requests_per_minute: float | None = option(None, "Most requests begun in a minute. Default: no limit.")
    judge_concurrency: int = option(4, "Requests under way at once.")

    def __post_init__(self) -> None:
        if isinstance(self.judge_api_key_env, str):
            self.judge_api_key_env = [self.judge_api_key_env]
        for name in ("judge_max_tokens", "judge_attempts", "judge_concurrency"):
            check_number(name, getattr(self, name), least=1, whole=True)
        for name in ("judge_timeout", "judge_requests_per_minute"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, positive=True)


def check_judges(specs: Sequence[JudgeSpec], args: JudgeArguments) -> None:
    """
    Says what is wrong with judges before data or models are loaded.

    Raises:
        ValueError: If an address, a count or the key's variable is wrong, or options of endpoints have no endpoint.
    """
    endpoints = [spec for spec in specs if is_endpoint(spec)]
    for spec in endpoints:
        check_address(spec.target)
        if spec.option is None:
            raise ValueError(f"`judges`: {spec} names no model: write {KINDS['llm']}.")
    for spec in specs:
        if spec.kind == "count":
            CountJudge(spec.target)
        if spec.kind == "llm" and spec.option is not None and not is_endpoint(spec):
            raise ValueError(f"`judges`: {spec}: a model that runs here has no #{spec.option}.")
    if args.judge_api_key_env is not None and not endpoints:
        raise ValueError("`judge_api_key_env` has no effect: no judge is an endpoint (llm:http...).")
    keys = keys_by_host(args.judge_api_key_env or (), [spec.target for spec in endpoints])
    for spec in endpoints:
        check_address(spec.target, with_key=host_of(spec.target) in keys)
    if args.descriptions and not any(spec.kind == "llm" for spec in specs):
        raise ValueError("`descriptions` has no effect: no judge is a language model (llm:...).")


def is_endpoint(spec: JudgeSpec) -> bool:
    """Whether a language model is asked over HTTP."""
    return spec.kind == "llm" and "://" in spec.target


def load_judges(
    specs: Sequence[JudgeSpec], args: JudgeArguments, attributes: Sequence[str], output: Path, batch_size: int
) -> dict[str, Judge]:
    """
    The judges by the way they are written, each loaded once.

    Args:
        specs, args:
            As in [`check_judges`].
        attributes (`Sequence[str]`):
            Every attribute, for `descriptions`.
        output (`Path`):
            Verdicts of language models are kept in `verdicts` there.
        batch_size (`int`):
            Texts that models on this machine read at once.

    Raises:
        FileNotFoundError: If a model or file is not there.
        ValueError: If a judge cannot be what it should be.
    """
    descriptions = parse_descriptions(args.descriptions or (), attributes)
    keys = keys_by_host(args.judge_api_key_env or (), [spec.target for spec in specs if is_endpoint(spec)])
    found: dict[str, Judge] = {}
    for spec in {str(spec): spec for spec in specs}.values():
        if spec.kind == "count":
            found[str(spec)] = CountJudge(spec.target)
        elif spec.kind == "python":
            found[str(spec)] = PythonJudge(spec.target)
        elif spec.kind == "llm":
            found[str(spec)] = LlmJudge(_answerer(spec, args, keys, batch_size), output / "verdicts", descriptions)
        else:
            source, name = _full_model(spec)
            found[str(spec)] = ClassifierJudge(
                source.folder, spec.option, with_prompt=spec.kind == "reward", name=name, batch_size=batch_size
            )
    return found


def _answerer(spec: JudgeSpec, args: JudgeArguments, keys: Mapping[str, str], batch_size: int) -> Answerer:
    if is_endpoint(spec):
        assert spec.option is not None  # `check_judges` has looked
        names = ("max_tokens", "timeout", "attempts", "requests_per_minute", "concurrency")
        options = {name: getattr(args, f"judge_{name}") for name in names}
        return HttpAnswerer(spec.target, spec.option, api_key_env=keys.get(host_of(spec.target)), **options)
    source, name = _full_model(spec)
    length = args.judge_max_tokens
    return LocalAnswerer(
        source.folder, name=name, fingerprint=source.fingerprint(), max_new_tokens=length, batch_size=batch_size
    )


def _full_model(spec: JudgeSpec) -> tuple[ModelSource, str]:
    """The model that a judge is, and what it is called."""
    source = find_model(spec.target)
    if source.base is not None:
        raise ValueError(f"`judges`: {spec.target!r} is an adapter: merge it, and name the merged model.")
    return source, source.folder.name if Path(spec.target).expanduser().is_dir() else spec.target
