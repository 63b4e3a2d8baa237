"""What is different here from what was recorded, the worst first, and what each difference can do. Pure functions."""

from __future__ import annotations

import difflib
import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.surroundings import Surroundings
from hfsuite.seeds import SETTING
from hfsuite.tracking.recipe import is_hidden


class Weight(enum.IntEnum):
    """What a difference can do to a result."""

    NOTHING = 0
    LAST_BITS = 1
    RESULT = 2


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was.

    Args:
        subject: what.
        recorded: as it was.
        here: as it is.
        weight: how much it can do.
        effect: what it can do, in words.
    """

    subject: str
    recorded: str
    here: str
    weight: Weight
    effect: str

    def as_json(self) -> dict[str, str]:
        """Plain values."""
        return {
            "subject": self.subject,
            "recorded": self.recorded,
            "here": self.here,
            "weight": self.weight.name.lower(),
            "effect": self.effect,
        }


OF_TRAINING = ("transformers", "accelerate", "datasets", "tokenizers", "peft", "deepspeed", "bitsandbytes")
OF_NUMBERS = ("torch", "numpy", "scipy", "scikit-learn", "safetensors")
OF_RAY = ("ray", "hfsuite")
OF_NUMBERS_TOO = {  # environment variables, and what they can do
    "OMP_NUM_THREADS": "sums in another order: the last bits",
    "MKL_NUM_THREADS": "sums in another order: the last bits",
    "CUBLAS_WORKSPACE_CONFIG": "kernels that give other bits each time",
    "PYTHONHASHSEED": "the order of sets of texts, and all that is built from it",
}
SHOWN_SETTINGS = 60  # characters of a value
OF_DEVICE = {
    "device": "other kernels: the last bits",
    "cuda": "other kernels: the last bits",
    "cudnn": "other kernels: the last bits",
    "nccl": "sums over ranks in another order: the last bits",
    "driver": "other code for the device: rarely the last bits",
    "tf32": "products are rounded to 10 bits, or not",
    "cudnn_benchmark": "kernels are chosen by their speed: the last bits",
    "default_dtype": "other numbers altogether",
}


def of_interruptions(run: RecordedRun) -> list[Difference]:
    """What was not in one piece about a run: it went on from a checkpoint, perhaps with other code."""
    restarts, state = run.recipe["restarts"], run.recipe["state"]
    ends = [
        Difference(
            "end", f"{state} after step {run.recipe['last_step']}", "ends there", Weight.NOTHING,
            "what ended it is not repeated",
        )
    ]  # fmt: skip
    ends = ends if state in ("failed", "stopped", "lost") else []
    if not restarts:
        return ends
    steps = ", ".join(map(str, restarts))
    found = [
        Difference(
            "interruption", f"went on from step {steps}", "in one piece", Weight.LAST_BITS,
            "draws that no checkpoint holds begin anew",
        )
    ]  # fmt: skip
    names = {"git": "commit or changes", "source": "experiment's code", "packages": "packages", "python": "python"}
    changed = sorted({names[name] for each in run.resumed for name in each if name in names})
    if changed:
        found.insert(
            0,
            Difference(
                "code on the way", f"{', '.join(changed)} changed when it was resumed", "as it began", Weight.RESULT,
                "another training from there on",
            ),
        )  # fmt: skip
    return [*found, *ends]


def differences(recorded: Surroundings, here: Surroundings) -> list[Difference]:
    """All of them, the worst first.

    Args:
        recorded: of the run that is there.
        here: of its repetition, or of another run.
    """
    found = [
        *_of_code(recorded, here),
        *_of_settings(recorded, here),
        *_of_inputs(recorded, here),
        *_of_division(recorded, here),
        *_of_packages(recorded.packages, here.packages),
        *_of_machine(recorded, here),
    ]
    return sorted(found, key=lambda each: -each.weight)


def _of_code(recorded: Surroundings, here: Surroundings) -> Iterator[Difference]:
    if recorded.source is not None and recorded.source_digest != here.source_digest:
        count = _changed_lines(recorded.source, here.source or "")
        changed = "gone" if here.source is None else f"{count} lines differ" if count else "a secret in it differs"
        yield Difference(
            "experiment's code", str(recorded.environment.get("module")), changed, Weight.RESULT, "another training"
        )
    ours, theirs = (each.git.get("commit") for each in (recorded, here))
    if ours != theirs:
        yield Difference(
            "commit", _short(ours), _short(theirs), Weight.RESULT, "code beside the experiment's may be another"
        )
    if recorded.git.get("diff_digest") != here.git.get("diff_digest") and (recorded.diff or here.diff):
        yield Difference(
            "uncommitted changes", _lines(recorded.diff), _lines(here.diff), Weight.RESULT,
            "code beside the experiment's may be another",
        )  # fmt: skip


def _of_settings(recorded: Surroundings, here: Surroundings) -> Iterator[Difference]:
    for name in sorted({*recorded.config, *here.config}):
        ours, theirs = (each.config.get(name, "none") for each in (recorded, here))
        if is_hidden(ours):
            yield Difference(name, "a secret", "given", Weight.RESULT, "cannot be compared: it may be another")
        elif ours != theirs:
            yield Difference(name, _cut(ours), _cut(theirs), Weight.RESULT, "another training")
    if recorded.seed != here.seed and SETTING not in recorded.config:
        yield Difference("seed", str(recorded.seed), str(here.seed), Weight.RESULT, "other draws")
    ours, theirs = (each.facts.get("seeds") or {} for each in (recorded, here))
    if recorded.facts and here.facts and ours != theirs and recorded.config.get(SETTING) == here.config.get(SETTING):
        yield Difference("seeds in use", json.dumps(ours), json.dumps(theirs), Weight.RESULT, "other draws")


def _of_inputs(recorded: Surroundings, here: Surroundings) -> Iterator[Difference]:
    if not (recorded.facts and here.facts):
        return
    ours, theirs = (_inputs(each.facts) for each in (recorded, here))
    for context in sorted({*ours, *theirs}):
        old, new = ours.get(context), theirs.get(context)
        effect = "starts from other weights" if context == "base model" else "other rows"
        if old is None or new is None or old["digest"] != new["digest"]:
            yield Difference(context, _input(old), _input(new), Weight.RESULT, effect)
        elif old["digest"] == "unknown":
            yield Difference(context, "unknown", "unknown", Weight.RESULT, "cannot be compared: it may be another")


def _of_division(recorded: Surroundings, here: Surroundings) -> Iterator[Difference]:
    if recorded.workers != here.workers or recorded.changed_workers:
        effect, before = "other rows in each rank, other sums: equal in the mean at best", recorded.changed_workers
        yield Difference("world size", before or str(recorded.workers), str(here.workers), Weight.RESULT, effect)
    if recorded.deterministic != here.deterministic:
        yield Difference(
            "deterministic", str(recorded.deterministic), str(here.deterministic), Weight.LAST_BITS,
            "kernels that give other bits each time",
        )  # fmt: skip
    elif recorded.deterministic is False:
        yield Difference("deterministic", "no", "no", Weight.LAST_BITS, "kernels may give other bits each time")
    if not (recorded.facts and here.facts):
        return
    ours, theirs = (each.facts.get("batch") or {} for each in (recorded, here))
    if ours != theirs and recorded.workers == here.workers:
        effect = "sums in another order: the last bits, and what grows from them"
        yield Difference("batch of a rank", _batch(ours), _batch(theirs), Weight.LAST_BITS, effect)
    if recorded.facts["threads"] != here.facts["threads"]:
        yield Difference(
            "threads", str(recorded.facts["threads"]), str(here.facts["threads"]), Weight.LAST_BITS,
            "sums in another order: the last bits",
        )  # fmt: skip
    for name, effect in OF_DEVICE.items():
        if recorded.facts.get(name) != here.facts.get(name):
            yield Difference(
                name.replace("_", " "), str(recorded.facts.get(name)), str(here.facts.get(name)),
                Weight.RESULT if name == "default_dtype" else Weight.LAST_BITS, effect,
            )  # fmt: skip


def _of_packages(recorded: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Difference]:
    changed = {
        name: (recorded.get(name, "none"), here.get(name, "none"))
        for name in sorted({*recorded, *here})
        if recorded.get(name) != here.get(name)
    }
    for names, weight, effect in (
        (OF_TRAINING, Weight.RESULT, "the training loop, the data or the model may be another"),
        (OF_NUMBERS, Weight.LAST_BITS, "other kernels: the last bits"),
        (OF_RAY, Weight.NOTHING, "how ranks are started; with Ray Data, how rows are dealt out"),
    ):
        for name in names:
            if name in changed:
                old, new = changed.pop(name)
                yield Difference(name, old, new, weight, effect)
    if changed:
        some = ", ".join(list(changed)[:3]) + (", ..." if len(changed) > 3 else "")
        yield Difference("other packages", f"{len(changed)} differ", some, Weight.NOTHING, "rarely anything")


def _of_machine(recorded: Surroundings, here: Surroundings) -> Iterator[Difference]:
    ours, theirs = recorded.environment, here.environment
    on_gpu = (recorded.facts or {}).get("device", "cpu") != "cpu"
    for name, weight, effect in (
        ("processor", Weight.NOTHING if on_gpu else Weight.LAST_BITS, "kernels are chosen by it: the last bits"),
        ("python", Weight.NOTHING, "rarely anything"),
        ("system", Weight.NOTHING, "rarely the last bits of mathematical functions"),
        ("cores", Weight.NOTHING, "how fast it goes"),
    ):
        if ours.get(name) != theirs.get(name):
            yield Difference(name, str(ours.get(name)), str(theirs.get(name)), weight, effect)
    old, new = ours.get("environment") or {}, theirs.get("environment") or {}
    for name in sorted({*old, *new} - NOT_OF_TRAINING):
        if old.get(name) != new.get(name):
            weight = Weight.LAST_BITS if name in OF_NUMBERS_TOO else Weight.NOTHING
            effect = OF_NUMBERS_TOO.get(name, "where things are found")
            yield Difference(name, str(old.get(name, "none")), str(new.get(name, "none")), weight, effect)


NOT_OF_TRAINING = {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RAY_ADDRESS", "VIRTUAL_ENV", "SLURM_JOB_ID"}


def _inputs(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By what they are for; of several for one purpose the second is "evaluation 2"."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in facts.get("inputs", []):
        count = sum(key.partition(" #")[0] == each["context"] for key in found) + 1
        found[each["context"] if count == 1 else f"{each['context']} #{count}"] = each
    return found


def _input(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "none"
    rows = f"{found['rows']} rows, " if found.get("rows") is not None else ""
    return f"{found.get('name') or ''} {rows}{found['digest'][:8]}".strip()


def _batch(batch: Mapping[str, int]) -> str:
    return f"{batch['per_device']} x {batch['accumulation']}" if batch else "unknown"


def _changed_lines(old: str, new: str) -> int:
    compared = difflib.ndiff(old.splitlines(), new.splitlines())
    changed = [line[0] for line in compared if line[0] in "+-"]
    return max(changed.count("+"), changed.count("-"))


def _lines(text: str | None) -> str:
    return f"{len(text.splitlines())} lines" if text else "none"


def _short(commit: str | None) -> str:
    return commit[:10] if commit else "none"


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= SHOWN_SETTINGS else f"{text[:SHOWN_SETTINGS]}..."
