"""Log-probabilities of many answers to one question: the question is computed once, each answer sees it and itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fairpo_trl.evaluation.completions import evaluation_mode
from fairpo_trl.generation.packed_forward import packed_token_outputs
from fairpo_trl.generation.packing import PackedPairs


class Question(NamedTuple):
    """
    Token ids of a question and of its answers.

    Attributes:
        prompt (`list[int]`): The question.
        answers (`list[list[int]]`): At least one, each not empty.
    """

    prompt: list[int]
    answers: list[list[int]]

    @property
    def size(self) -> int:
        """Tokens of the question and all answers."""
        return len(self.prompt) + sum(map(len, self.answers))


def pack_answers(questions: Sequence[Question]) -> tuple[torch.Tensor, PackedPairs]:
    """
    One row for each question: `question | answer | answer | ...`.

    Args:
        questions (`Sequence[Question]`):
            Of one batch.

    Returns:
        `tuple`: the sequences in the plain layout, `[answers of all questions, W]`, and where their tokens lie.
    """
    lines = [(question.prompt, answer) for question in questions for answer in question.answers]
    width, size = max(len(p) + len(a) for p, a in lines), max(question.size for question in questions)
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    for line, (prompt, answer) in enumerate(lines):
        ids[line, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
    source = torch.zeros(len(questions), size, dtype=torch.long)
    positions, branch, owner = torch.zeros_like(source), torch.zeros_like(source), torch.full_like(source, -1)
    head: list[torch.Tensor] = []
    predicted: list[torch.Tensor] = []
    line = 0
    for row, (prompt, answers) in enumerate(questions):
        length = len(prompt)
        owner[row, : length + sum(map(len, answers))] = row
        source[row, :length] = line * width + torch.arange(length)
        positions[row, :length] = torch.arange(length)
        start = length
        for number, answer in enumerate(answers, start=1):
            own = torch.arange(len(answer))
            source[row, start + own], positions[row, start + own] = line * width + length + own, length + own
            branch[row, start + own] = number
            before = torch.cat([torch.tensor([length - 1]), start + own[:-1]])  # the question's end, then the answer
            head.append(row * size + before)
            predicted.append(line * (width - 1) + length - 1 + own)
            start, line = start + len(answer), line + 1
    return ids, PackedPairs(source, positions, owner, branch, torch.cat(head), torch.cat(predicted))


def answer_log_probs(model: Any, questions: Sequence[Question], batch_size: int = 4) -> list[np.ndarray]:
    """
    The log-probability of every answer, in nats, summed over its tokens.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            With TRL's fused head, as that of a trainer.
        questions (`Sequence[Question]`):
            What to score.
        batch_size (`int`, *optional*, defaults to `4`):
            Questions computed at once, those of similar size together.

    Returns:
        `list[np.ndarray]`: for each question `[answers]`.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(questions)
    order = sorted(range(len(questions)), key=lambda i: questions[i].size)
    with evaluation_mode(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            ids, packed = pack_answers([questions[i] for i in batch])
            outputs = packed_token_outputs(model, ids.to(model.device), packed.to(model.device))
            sums = outputs.log_probs.double().sum(dim=1).cpu().numpy()
            counts = np.cumsum([len(questions[i].answers) for i in batch])[:-1]
            for i, values in zip(batch, np.split(sums, counts), strict=True):
                found[i] = values
    return found
