"""A run that is stopped saves first and goes on bit-equal; a number that is not finite stops it, the rows named."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import torture
import torture_files
from conftest import make_model, make_tokenizer
from helpers_classification import classifier, multilabel, rows
from helpers_classification import parameters as label_parameters
from helpers_processes import together
from helpers_trainer import assert_same, data, fairpo, logs, parameters
from transformers import TrainerCallback

from fairpo_trl.training.checkpoints import list_checkpoints, newest_complete, verify
from fairpo_trl.training.interruption import StopAtSignal, TrainingInterrupted


RUN = {
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "random",
    "num_train_epochs": 2,  # 3 steps each
    "eta_alpha": 0.5,
    "logging_steps": 1,
}
in_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread only"
)


class SignalIn(TrainerCallback):
    """Sends signals to this very process while step `step` runs."""

    def __init__(self, step: int, *numbers: int) -> None:
        self.step, self.numbers, self.handlers = step, numbers, None

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step + 1 == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)
        self.handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)


def comparable(trainer) -> list[dict]:
    history = [
        {k: v for k, v in entry.items() if not k.endswith(("runtime", "_per_second"))} for entry in logs(trainer)
    ]
    return history + [e["eval_loss"] for e in logs(trainer, "eval_loss")]


# ---- SIGTERM and Ctrl-C ----


@in_main_thread
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_step_end_saves_and_stops_with_its_code(number, code, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer = fairpo(tmp_path / "a", data(12), **RUN, callbacks=[SignalIn(2, number)])
    with pytest.raises(TrainingInterrupted) as stopped:
        trainer.train()
    assert stopped.value.code == code
    assert isinstance(stopped.value, SystemExit)  # uncaught it ends the process with the code, without a traceback
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert [folder.name for folder in list_checkpoints(tmp_path / "a")] == ["checkpoint-2"]  # save_strategy is "no"
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Stopped")]
    assert said == [
        "Stopped after step 2, checkpoint-2 is written; go on with the same command and --resume_from_checkpoint true."
    ]

    again = fairpo(tmp_path / "a", data(12), **RUN)
    again.train(resume_from_checkpoint=True)
    whole = fairpo(tmp_path / "b", data(12), **RUN)
    whole.train()
    assert_same(parameters(whole), parameters(again), 0.0)
    assert whole.group_weights.state_dict() == again.group_weights.state_dict()
    assert comparable(whole) == comparable(again)


@in_main_thread
@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_stopping_anywhere_in_an_epoch_goes_on_bit_equal_with_epoch_strategies(step, tmp_path):
    options = {**RUN, "eval_strategy": "epoch", "save_strategy": "epoch", "disable_dropout": False}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "save_total_limit": 1}
    model = make_model()
    model.config.attention_dropout = 0.1  # generators matter, and an evaluation moves them
    eval_data = data(6, seed=9)
    stopped = fairpo(
        tmp_path / "a", data(12), model, **options, eval_dataset=eval_data, callbacks=[SignalIn(step, signal.SIGTERM)]
    )
    with pytest.raises(TrainingInterrupted):
        stopped.train()
    assert newest_complete(tmp_path / "a") == (tmp_path / "a" / f"checkpoint-{step}", [])
    assert len(logs(stopped, "eval_loss")) == step // 3  # no evaluation of an epoch that has not ended

    runs = []
    for name in ("a", "b"):
        model = make_model()
        model.config.attention_dropout = 0.1
        trainer = fairpo(tmp_path / name, data(12), model, **options, eval_dataset=eval_data)
        trainer.train(resume_from_checkpoint=name == "a")
        runs.append(trainer)
    assert comparable(runs[0]) == comparable(runs[1])
    assert_same(parameters(runs[0]), parameters(runs[1]), 0.0)
    assert runs[0].state.best_metric == runs[1].state.best_metric


def stopped_in(trainer, place: str) -> None:
    """Sends SIGTERM to this process in one place of a run of 4 steps that ends with an evaluation and a save."""

    def before(name: str, wanted) -> None:
        original = getattr(trainer, name)

        def with_signal(*args, **kwargs):
            if wanted():
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*args, **kwargs)

        setattr(trainer, name, with_signal)

    last = lambda: trainer.state.global_step == 4  # noqa: E731
    names = {"the last evaluation": "evaluation_loop", "the last save": "_save_checkpoint"}
    if place in names:
        before(names[place], last)
    elif place == "an evaluation":
        before("evaluation_loop", lambda: trainer.state.global_step == 2)
    elif place == "loading the best":
        before("_load_best_model", last)
    else:
        trainer.add_callback(SignalIn(3, signal.SIGTERM))


@in_main_thread
@pytest.mark.parametrize(
    ("place", "strategy"),
    [
        *[("a step", strategy) for strategy in ("no", "steps", "epoch", "best")],
        ("an evaluation", "best"),
        *[("the last evaluation", strategy) for strategy in ("no", "best")],
        *[("the last save", "epoch"), ("loading the best", "steps")],
    ],
)
def test_what_is_said_of_a_stop_is_true_wherever_it_comes(place, strategy, tmp_path, capsys):
    evaluation = {"eval_strategy": "epoch"} if strategy == "epoch" else {"eval_strategy": "steps", "eval_steps": 2}
    options = {**RUN, **evaluation, "num_train_epochs": 2, "save_strategy": strategy, "save_steps": 2}
    options |= {"per_device_train_batch_size": 6, "metric_for_best_model": "eval_loss"}  # 2 steps an epoch
    options |= {"load_best_model_at_end": strategy != "no"}

    def trainer(folder: str):
        return fairpo(tmp_path / folder, data(12), **options, eval_dataset=data(4, seed=9))

    stopped = trainer("a")
    stopped_in(stopped, place)
    with pytest.raises(TrainingInterrupted) as exit_code:
        stopped.train()
    assert exit_code.value.code == 143
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Stopped")]
    newest, passed_over = newest_complete(tmp_path / "a")
    assert newest is not None and not passed_over
    step = stopped.state.global_step
    assert step == (3 if place in ("a step", "an evaluation") else 4)
    assert said == [
        f"Stopped after step {step}, {newest.name} is written; go on with the same command and "
        "--resume_from_checkpoint true."
    ]
    if place != "loading the best":  # by then only the best and what the strategy kept may be there
        assert newest.name == f"checkpoint-{step}"

    again, whole = trainer("a"), trainer("b")
    again.train(resume_from_checkpoint=True)
    whole.train()
    assert again.state.global_step == whole.state.global_step == 4
    assert_same(parameters(whole), parameters(again), 0.0)
    assert whole.group_weights.state_dict() == again.group_weights.state_dict()


def test_a_forked_loader_worker_does_not_take_signals_for_its_own():
    handler = StopAtSignal(processes=1, agreed=lambda: False)
    for number, expected in ((signal.SIGINT, 7), (signal.SIGTERM, 143)):
        child = os.fork()
        if child == 0:  # Ctrl-C reaches the whole terminal: the worker goes on; SIGTERM ends it at once
            handler._handle(number, None)
            os._exit(7 if handler.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected


@in_main_thread
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_classifier_stops_and_goes_on_the_same_way(number, code, tmp_path, capsys):
    options = {"optim": "adamw_torch", "learning_rate": 0.01, "train_sampling_strategy": "random", "eta_alpha": 0.5}
    options |= {"num_train_epochs": 4, "epsilon": 0.0}
    stopped = multilabel(tmp_path / "a", **options, callbacks=[SignalIn(5, number)])
    with pytest.raises(TrainingInterrupted) as interrupted:
        stopped.train()
    assert interrupted.value.code == code
    assert "Stopped after step 5, checkpoint-5 is written; go on with the same command" in capsys.readouterr().out
    again, whole = (multilabel(tmp_path / name, **options) for name in ("a", "b"))
    again.train(resume_from_checkpoint=True)
    whole.train()
    assert_same(label_parameters(whole), label_parameters(again), 0.0)
    assert whole.group_weights.state_dict() == again.group_weights.state_dict()


@in_main_thread
def test_a_second_ctrl_c_stops_at_once(tmp_path, capsys):
    trainer = fairpo(tmp_path, data(12), **RUN, callbacks=[SignalIn(2, signal.SIGINT, signal.SIGINT)])
    with pytest.raises(TrainingInterrupted) as stopped:
        trainer.train()
    assert stopped.value.code == 130
    assert trainer.state.global_step == 1
    assert not list_checkpoints(tmp_path)
    assert "Stopped at once" in capsys.readouterr().out


@in_main_thread
def test_handlers_are_there_while_training_only_and_training_can_begin_again(tmp_path):
    spy = SignalIn(99)
    trainer = fairpo(tmp_path, data(12), **RUN, callbacks=[spy])
    trainer.train()
    assert spy.handlers[0] == spy.handlers[1] != signal.getsignal(signal.SIGTERM)
    assert not [c for c in trainer.callback_handler.callbacks if isinstance(c, StopAtSignal)]
    trainer.train()
    assert trainer.state.global_step == 6


@in_main_thread
def test_ctrl_c_passed_on_by_a_launcher_is_not_a_second_one(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    several = StopAtSignal(processes=2, agreed=lambda: False)
    several._handle(signal.SIGINT, None)
    clock[0] += 0.5  # from the launcher
    several._handle(signal.SIGINT, None)
    assert several.received == signal.SIGINT and not several.at_once
    clock[0] += 3.0  # from the user
    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        several._handle(signal.SIGINT, None)
    signal.signal(signal.SIGINT, previous)
    assert several.at_once


@pytest.mark.slow
def test_the_recipe_ends_with_the_code_of_the_signal_and_one_line(tmp_path):
    # Ctrl-C, which Python answers with a traceback by itself; SIGTERM comes to the two processes of the next test.
    never = 10**6  # it is stopped long before, however late the signal comes
    work = torture.Torture(torture.HALVES["generation"], tmp_path, steps=never, save_steps=never)
    process, log = work.start("run", resume=False)
    try:
        while process.poll() is None and torture._lines(log) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130
    finally:
        process.kill()
    text = log.read_text()
    assert "Traceback" not in text
    assert [line for line in text.splitlines() if line.startswith("Stopped after step")] == text.splitlines()[-1:]
    (folder,) = list_checkpoints(tmp_path / "run")
    verify(folder)
    assert not (tmp_path / "run" / "model.safetensors").exists()  # the training is not over


def stop_one_of_two(out: str) -> None:
    class SignalToOne(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2 and args.process_index == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    options = {"per_device_train_batch_size": 2, "ddp_backend": "gloo", "callbacks": [SignalToOne()]}
    trainer = fairpo(out, data(24), **options)
    try:
        trainer.train()
    except SystemExit as stopped:
        found = [stopped.code, trainer.state.global_step]
        Path(out, f"rank{trainer.args.process_index}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_processes_agree_on_the_step_after_which_they_stop(tmp_path):
    said = together(stop_one_of_two, (str(tmp_path / "out"),), 2, tmp_path / "log")
    ranks = [json.loads((tmp_path / "out" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    # The signal came within step 3, after its exchange: all of them learn of it in step 4.
    assert ranks == [[143, 4], [143, 4]]
    folder, passed_over = newest_complete(tmp_path / "out")
    assert folder is not None and folder.name == "checkpoint-4" and not passed_over
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in folder.iterdir()}
    assert said.count("Stopped after step 4") == 1


@pytest.mark.slow
def test_three_kills_and_a_resume_after_each_end_bit_equal(tmp_path):
    half = torture.HALVES["generation"]
    outcome = torture.torture(half, tmp_path, kills=3, steps=48, save_steps=6, seed=3, launcher=[])
    assert outcome.kills == 3
    assert outcome.in_a_save >= 2  # the first and the third are aimed at one; the second hits one by chance
    assert outcome.differences == []


@pytest.mark.slow
def test_feature_extraction_survives_kills_and_computes_nothing_twice(tmp_path):
    work = torture_files.Features(tmp_path, images=120)
    outcome = torture_files.torture_files(work, tmp_path, kills=4, seed=1)
    assert outcome.kills == 4
    assert outcome.differences == []


class SmallTable:
    """The methods of the table on small random features; life 2 kills itself in the middle of a file."""

    holds = True

    def start(self, folder: Path, life: int, killed: bool) -> torture_files.Life:
        from test_classification_experiment import HEAD, experiment

        from experiments.classification import runs as engine
        from experiments.classification.compare import METHODS, REWEIGHTING
        from experiments.classification.compare_tables import write_tables

        def run() -> None:
            torch.set_num_threads(1)
            engine.PATIENCE, engine.ANNEAL = 2, 1
            original = engine.save_file

            def half(tensors, path, metadata) -> None:
                original(tensors, path, metadata)
                Path(path).write_bytes(Path(path).read_bytes()[:999])
                os.kill(os.getpid(), signal.SIGKILL)

            if life == 2:
                engine.save_file = half
            (folder / f"{life}.begun").touch()
            runs = experiment(folder / "runs")
            runs.folder.mkdir(exist_ok=True)
            *rows, last = (engine.REFERENCE, *METHODS[:4], *REWEIGHTING[:2])
            for row in rows:
                runs.run(row, HEAD, 0)
            if killed and life != 2:
                torture_files.wait_for_the_kill()
            runs.run(last, HEAD, 0)
            sections = {"reference": [engine.REFERENCE], "methods": METHODS[:4], "reweighting": REWEIGHTING[:2]}
            write_tables(runs, sections, [HEAD], [0], resamples=20)

        return torture_files.Life(run, folder / f"{life}.txt")

    def begun(self, folder: Path, life: int) -> bool:
        return life != 2 and (folder / f"{life}.begun").exists()  # nobody else kills life 2

    def complete(self, folder: Path) -> dict:
        return torture_files.MethodTable().complete(folder)

    def computed(self, folder: Path, life: int) -> set[str]:
        return set()

    def result(self, folder: Path) -> dict:
        return torture_files.table_result(folder / "runs")


@pytest.mark.slow
def test_the_table_survives_kills_and_repeats_no_complete_run(tmp_path):
    said: list[str] = []
    outcome = torture_files.torture_files(SmallTable(), tmp_path, kills=4, seed=2, say=said.append)
    assert outcome.kills == 4
    assert outcome.drafts >= 1  # what the kill in the middle of a file left behind; another may have hit one by chance
    assert outcome.differences == []


class Careless:
    """Work that begins anew in every life, and ends in another place."""

    holds = False

    def start(self, folder: Path, life: int, killed: bool) -> torture_files.Life:
        def run() -> None:
            (folder / "result").write_text(f"{folder.name} {life}")
            (folder / f"{life}.begun").touch()

        return torture_files.Life(run, folder / f"{life}.txt")

    def begun(self, folder: Path, life: int) -> bool:
        return (folder / f"{life}.begun").exists()

    def complete(self, folder: Path) -> dict:
        path = folder / "result"
        return {"result": path.read_text()} if path.exists() else {}

    def computed(self, folder: Path, life: int) -> set[str]:
        return set()

    def result(self, folder: Path) -> dict:
        return {"result": (folder / "result").read_text()}


def test_the_comparison_of_files_sees_what_is_computed_twice_or_differs(tmp_path):
    outcome = torture_files.torture_files(Careless(), tmp_path, kills=1, say=lambda line: None)
    assert outcome.differences == [
        "life 2 computed result again, which was complete",
        "result is not that of the run in peace",
    ]


def test_the_comparison_of_two_runs_sees_a_difference_in_the_last_bit(tmp_path):
    for name in ("a", "b"):
        fairpo(tmp_path / name, data(12), **{**RUN, "max_steps": 2, "save_strategy": "steps", "save_steps": 2}).train()
    one, other = tmp_path / "a", tmp_path / "b"
    assert torture.differences(one, other, 2) == []
    optimizer = torch.load(other / "checkpoint-2" / "optimizer.pt", weights_only=True)
    moment = optimizer["state"][0]["exp_avg"]
    moment.view(torch.int64)[0, 0] ^= 1
    torch.save(optimizer, other / "checkpoint-2" / "optimizer.pt")
    state = json.loads((other / "checkpoint-2" / "fairpo_state.json").read_text())
    state["metric_sums"][0] += 1
    (other / "checkpoint-2" / "fairpo_state.json").write_text(json.dumps(state))
    assert torture.differences(one, other, 2) == ["fairpo_state.json of checkpoint-2", "optimizer.pt of checkpoint-2"]


# ---- not finite ----


def spoiled(row: int, where: str = "forward", value: float = float("nan")):
    """A model that gives one pair (found by its prompt) a value that is not finite, in the forward or the backward."""
    model, rows = make_model(), data(12)
    prompt = make_tokenizer()(rows[row]["prompt"])["input_ids"]
    original = model.model.forward

    def forward(input_ids=None, **kwargs):
        outputs = original(input_ids=input_ids, **kwargs)
        hidden = outputs.last_hidden_state
        # Wherever the prompt lies: a packed row holds several pairs, and all of them are spoiled then.
        hit = (input_ids.unfold(1, len(prompt), 1) == torch.tensor(prompt)).all(dim=2).any(dim=1)
        if where == "forward":
            outputs.last_hidden_state = torch.where(hit[:, None, None], value, hidden)
        elif hidden.requires_grad:
            hidden.register_hook(lambda grad: torch.where(hit[:, None, None], value, grad))
        return outputs

    model.model.forward = forward
    return model, rows


@pytest.mark.parametrize(
    "options", [{}, {"timing": "current"}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}]
)
def test_a_row_that_is_not_finite_is_named_before_anything_is_updated(options, tmp_path):
    model, rows = spoiled(6)
    trainer = fairpo(tmp_path, rows, model, **{**RUN, "train_sampling_strategy": "sequential", **options})
    seen = []
    trainer.add_callback(Snapshot(trainer, seen))
    name, start = rows[6]["attribute"], rows[6]["prompt"].strip()
    with pytest.raises(
        FloatingPointError, match=rf"Optimizer step 2: .* of row 6 \(attribute '{name}', prompt '{start}'"
    ):
        trainer.train()
    assert_same(seen[-1], parameters(trainer), 0.0)  # as step 1 left them
    assert torch.isfinite(trainer.group_weights.weights).all()


class Snapshot(TrainerCallback):
    def __init__(self, trainer, seen) -> None:
        self.trainer, self.seen = trainer, seen

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seen.append(parameters(self.trainer))


def test_a_gradient_that_is_not_finite_is_found_although_every_loss_is(tmp_path):
    model, rows = spoiled(6, "backward")  # of a held pair: an idle one has no backward pass
    options = {**RUN, "train_sampling_strategy": "sequential", "skip_idle_pairs": False}
    trainer = fairpo(tmp_path, rows, model, **options)
    seen: list = []
    trainer.add_callback(Snapshot(trainer, seen))
    with pytest.raises(
        FloatingPointError, match=r"Optimizer step 2: the gradient is not finite \(nan\).*row 4 .*row 6 "
    ):
        trainer.train()
    assert_same(seen[-1], parameters(trainer), 0.0)


def spoiled_classifier(split, row: int, label: int | None, where: str = "forward"):
    """A classifier that gives one row (found by its features) a value that is not finite, in one label or in all."""
    model = classifier(seed=1)
    wanted, original = torch.from_numpy(split.features[row]), model.forward

    def forward(features=None, **kwargs):
        outputs = original(features=features, **kwargs)
        hit = (features.float() == wanted).all(dim=1).unsqueeze(1)
        hit = hit & (torch.arange(outputs.logits.size(1)) == label if label is not None else True)
        if where == "forward":
            outputs.logits = torch.where(hit, torch.nan, outputs.logits)
        elif outputs.logits.requires_grad:
            outputs.logits.register_hook(lambda grad: torch.where(hit, torch.nan, grad))
        return outputs

    model.forward = forward
    return model


@pytest.mark.parametrize("options", [{}, {"timing": "lagged", "gradient_accumulation_steps": 2}])
@pytest.mark.parametrize(("label", "named"), [(3, r" \(labels \['drum'\]\)"), (None, "")])
def test_a_classifier_names_step_row_and_label_before_anything_is_updated(label, named, options, tmp_path):
    split = rows(24)
    trainer = multilabel(
        tmp_path, split, spoiled_classifier(split, 6, label), per_device_train_batch_size=4, epsilon=0.0, **options
    )
    before, step = label_parameters(trainer), 1 if "timing" in options else 2
    seen = [before]
    trainer.add_callback(Snapshot(trainer, seen))
    with pytest.raises(
        FloatingPointError, match=rf"Optimizer step {step}: .* of row 6 \(train-6\){named} is not finite"
    ):
        trainer.train()
    assert_same(seen[-1], label_parameters(trainer), 0.0)
    assert torch.isfinite(trainer.group_weights.weights).all()


def test_a_gradient_of_a_classifier_that_is_not_finite_is_found_although_every_loss_is(tmp_path):
    split = rows(24)
    trainer = multilabel(tmp_path, split, spoiled_classifier(split, 6, 3, "backward"), per_device_train_batch_size=4)
    with pytest.raises(
        FloatingPointError, match=r"Optimizer step 2: the gradient is not finite \(nan\).*row 4 .*row 6 "
    ):
        trainer.train()


def test_evaluation_names_the_row_too(tmp_path):
    model, rows = spoiled(6)
    trainer = fairpo(tmp_path, data(12, seed=5), model, **RUN, eval_dataset=rows)
    with pytest.raises(FloatingPointError, match="Evaluation: the log-probability or loss of row 6 "):
        trainer.evaluate()


def test_a_log_probability_of_minus_infinity_is_named_though_its_loss_is_zero(tmp_path, monkeypatch):
    # The rejected completion at -inf: the margin is inf, the loss 0, and the gradient nan.
    import fairpo_trl.generation.pair_forward as module

    original = module.sum_tokens

    def sum_tokens(*args):
        policy = original(*args)
        rejected = torch.where(torch.arange(len(policy.rejected)) == 1, -torch.inf, policy.rejected)
        return policy._replace(rejected=rejected)

    trainer = fairpo(tmp_path, data(12), **{**RUN, "train_sampling_strategy": "sequential"})
    monkeypatch.setattr(module, "sum_tokens", sum_tokens)
    with pytest.raises(FloatingPointError, match="Optimizer step 1: the log-probability or loss of row 1 "):
        trainer.train()


def test_a_stream_without_row_numbers_names_attribute_and_prompt(tmp_path):
    model, rows = spoiled(6)
    options = {**RUN, "max_steps": 3, "non_privileged_attributes": ["polite", "factual"]}
    trainer = fairpo(tmp_path, rows.to_iterable_dataset(), model, **options)
    start = rows[6]["prompt"].strip()
    with pytest.raises(FloatingPointError, match=rf"loss of \(attribute '{rows[6]['attribute']}', prompt '{start}"):
        trainer.train()


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    # What accelerate makes of an FSDP launch on a machine without a GPU: two runs that write into one folder.
    trainer = fairpo(tmp_path, data(12), **RUN)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="launcher started 2 processes, but each would train alone"):
        trainer.start_groups(trainer._pair_sums)
