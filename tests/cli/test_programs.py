"""Experiments that scripts, notebooks and commands declare are found again: by their files, or out of the record."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from ray import cloudpickle

from hfsuite.cli.loading import load_experiment
from hfsuite.errors import ConfigurationError, UnknownName
from hfsuite.reproduce.transplant import transplant
from hfsuite.tracking import provenance
from hfsuite.tracking.declared import Program
from hfsuite.tracking.notebook import as_program, as_python
from tests import program

HEAD = """
import ray.train
from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment
from beside import square


def loop(config):
    for step in (1, 2):
        ray.train.report({"loss": square(config["x"]) + config["shift"] + step, "step": step})


def made(name, shift=0.0):
    trainer = AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1))
    return Experiment(
        name=name, trainer=trainer, space={"x": tune.uniform(-1, 1)}, metric="loss", mode="min",
        defaults={"x": 0.0, "shift": shift},
    )

"""
WAYS = {
    "unguarded": 'mine = made("mine")\nmine.sweep(trials=1)\nprint("never")\n',
    "guarded": 'mine = made("mine")\nif __name__ == "__main__":\n    mine.sweep(trials=1)\n',
    "in a function": 'def main():\n    made("mine").sweep(trials=1)\n\nif __name__ == "__main__":\n    main()\n',
    "after another": 'first = made("first").sweep(trials=1)\nprint(first.best)\nmade("mine").sweep(trials=1)\n',
    "trained once": 'mine = made("mine")\nmine.train({"x": 0.5})\n',
    "only declared": 'other = made("other")\nmine = made("mine")\n',
    "handed to the command": 'from hfsuite.cli import run_module\n\nmine = made("mine")\nrun_module(mine)\n',
}


@pytest.fixture(autouse=True)
def folder(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's, with a module beside the script."""
    (own_directory / "beside.py").write_text("def square(x):\n    return x * x\n")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    before = set(sys.modules)
    yield own_directory
    for name in set(sys.modules) - before:
        if name in ("beside", "scripted") or name.startswith("jobs"):
            del sys.modules[name]


def wanted(text: str | None = None, *arguments: str) -> Program:
    return Program(experiment="mine", text=text, arguments=arguments)


@pytest.mark.parametrize("way", WAYS)
def test_a_script_is_run_up_to_where_it_launches(folder: Path, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scripted.py").write_text(HEAD + WAYS[way])
    assert load_experiment("scripted.py", wanted()).name == "mine"
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("way", WAYS)
def test_one_that_is_gone_is_run_out_of_the_record(way: str) -> None:
    found = load_experiment("scripted.py", wanted(HEAD + WAYS[way]))
    assert (found.name, found.module) == ("mine", "scripted.py")
    assert provenance.collect("scripted.py")["source"] == HEAD + WAYS[way]


def test_modules_beside_a_script_in_a_folder_are_found(folder: Path) -> None:
    (folder / "jobs").mkdir()
    (folder / "beside.py").rename(folder / "jobs" / "beside.py")
    (folder / "jobs" / "scripted.py").write_text(HEAD + WAYS["unguarded"])
    assert load_experiment("jobs/scripted.py").name == "mine"


def test_it_gets_the_arguments_of_then() -> None:
    text = HEAD + "import sys\n\nmade('mine', shift=float(sys.argv[2])).sweep()\n"
    declaration = Program.of("mine", {"arguments": ["--shift", "3"], "launch": 0}, text)
    assert load_experiment("scripted.py", declaration).defaults["shift"] == 3.0
    assert provenance.collect("scripted.py")["arguments"] == ["--shift", "3"], "of its repetition too"
    with pytest.raises(ConfigurationError, match=r"not recorded, since it may be a secret \(--token \.\.\.\)"):
        load_experiment("scripted.py", Program.of("mine", {"arguments": ["--token", "..."]}, text))


def test_who_runs_a_program_by_the_command_has_called_it_with_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "scripted.py").write_text(HEAD + WAYS["in a function"])
    monkeypatch.setattr(sys, "argv", ["/bin/hfsuite", "sweep", "scripted.py", "--trials", "3"])
    load_experiment("scripted.py")
    found = provenance.collect("scripted.py")
    assert (found["arguments"], found["command"]) == ([], "hfsuite sweep scripted.py --trials 3")


@pytest.mark.parametrize("start", ["Thread(target=launch)", "Timer(0, launch)"])
def test_a_program_may_launch_in_a_thread(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # Python's own, which passes over SystemExit
    text = f"{HEAD}import threading\n\ndef launch():\n    made('mine').sweep()\n\n"
    text += f"t = threading.{start}\nt.start()\nt.join()\n"
    assert load_experiment("scripted.py", wanted(text)).name == "mine"


def test_a_script_that_was_a_notebook_fails_as_scripts_do() -> None:
    text = f"{HEAD}# In[1]:\nprint(undefined)\n\n# In[2]:\nmade('mine').sweep()\n"
    with pytest.raises(ConfigurationError, match="NameError: name 'undefined' is not defined"):
        load_experiment("scripted.py", wanted(text))


def test_a_cell_that_has_failed_ends_alone() -> None:
    cells = [HEAD, "x = 1\nprint(undefined)\nx = 2", "len(3)", "raise SystemExit", "made('mine', x).sweep()"]
    assert load_experiment("book.ipynb.py", wanted(as_program(cells))).defaults["shift"] == 1
    with pytest.raises(ConfigurationError, match="NameError: name 'undefined' is not defined"):
        load_experiment("book.ipynb.py", wanted(as_program(cells[:2])))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "does not launch or declare the experiment 'mine' any more"),
        (
            "made('first').sweep()\nif 1:\n    first.best\n",
            "does not come to the experiment 'mine' without the result of 'first'",
        ),
        ("raise SystemExit(2)\n", r"ends itself \(exit code 2\) before it launches"),
        ("1 / 0\n", r"fails: ZeroDivisionError: division by zero \(line"),
        ("undefined\n", r"fails: NameError: name 'undefined' is not defined"),
        ("x = (\n", "is no Python code"),
    ],
)
def test_one_that_cannot_be_run_says_why(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_experiment("scripted.py", wanted(HEAD + text))


def test_without_a_file_and_a_record_there_is_none() -> None:
    with pytest.raises(UnknownName, match=r"There is no file 'scripted.py' here\. Its source was not recorded whole"):
        load_experiment("scripted.py", wanted())
    with pytest.raises(UnknownName, match=r"There is no file 'scripted.py' here\.$"):
        load_experiment("scripted.py")


@pytest.mark.parametrize("way", ["unguarded", "guarded", "in a function", "after another"])
def test_its_training_can_be_exported(way: str) -> None:
    source = HEAD.replace("from beside import square", "square = abs") + WAYS[way]
    found = transplant(source, "scripted.py")
    assert found.function == "loop"
    names = compile(found.code, "experiment.py", "exec").co_names
    assert {"loop", "square"} <= set(names)
    assert not {"made", "mine", "main", "first"} & set(names)


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("%matplotlib inline\nx = 1\n!ls", "x = 1"),
        ("x = 7\n%%time\nx = 1".partition("\n")[2], "x = 1"),
        ("%%bash\nls", ""),
        ("x = (", ""),
        ("if 1:\n    !ls\n    x = 1", "if 1:\n    pass\n    x = 1"),
        ("x = %time 1 + 1", "x = 1 + 1"),
        ("files = !ls\nx = 1", "files = __import__('subprocess').getoutput('ls').splitlines()\nx = 1"),
        ("%%time\n!pip list\nx = 1", "x = 1"),
        ("%%time\n%matplotlib inline\nx = 1", "x = 1"),
        ("%%capture out\n%time x = 1", "x = 1"),
        ("%time -x y = 3", "y = 3"),
        ("c = 'google.colab' in str(get_ipython())", "c = 'google.colab' in str(None)"),
        ("a = 1; get_ipython().system('ls')", "a = 1"),
        ("if True: get_ipython().system('ls')", "if True: pass"),
        ("x = 7 \\\n% 4", "x = 7 % 4"),
        ("x = (7\n% 4)", "x = 7 % 4"),
        ('x = """\n!ls\n%time\n"""', 'x = "\\n!ls\\n%time\\n"'),
        ("int?\nx = 1", "x = 1"),
    ],
)
def test_what_only_ipython_understands_is_no_part_of_the_program(cell: str, python: str) -> None:
    transformed = TransformerManager().transform_cell(cell)
    found = ast.parse(as_python(transformed))
    body = [each for each in found.body if not isinstance(each, ast.Pass)]
    assert ast.dump(ast.Module(body, [])) == ast.dump(ast.parse(python))


def test_a_cell_may_await_something() -> None:
    text = HEAD + "import asyncio\n\nawait asyncio.sleep(0)\nmade('mine', await asyncio.sleep(0, 2.0)).sweep()\n"
    assert load_experiment("book.ipynb.py", wanted(text)).defaults["shift"] == 2.0


def test_a_launch_is_found_by_its_number_among_those_of_its_name() -> None:
    text = HEAD + "for shift in (1.0, 2.0, 3.0):\n    made('other').sweep()\n    made('mine', shift).sweep()\n"
    for launch, shift in enumerate((1.0, 2.0, 3.0)):
        asked = Program(experiment="mine", text=text, launch=launch)
        assert load_experiment("scripted.py", asked).defaults["shift"] == shift
    in_main = HEAD + "def main():\n    made('first').sweep()\n    made('mine').sweep()\n\nmain()\n"
    assert load_experiment("scripted.py", wanted(in_main)).name == "mine"


def test_of_two_with_one_name_the_launched_one_is_meant(folder: Path) -> None:
    text = 'a = made("mine", 1.0)\nb = made("mine", 2.0)\nif __name__ == "__main__":\n    b.sweep()\n'
    (folder / "scripted.py").write_text(HEAD + text)
    assert load_experiment("scripted.py", wanted()).defaults["shift"] == 2.0


@pytest.mark.parametrize("name", ["scripted.py", "./scripted"])
def test_a_program_reads_its_own_arguments(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hfsuite", "train", name, "--workers", "2"])
    text = (
        "import argparse\n\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--shift', type=float, default=1.0)\n"
        "given = parser.parse_args()\nexperiment = made('mine', given.shift)\n"
        "if __name__ == '__main__':\n    experiment.sweep()\n"
    )
    (folder / name).write_text(HEAD + text)
    assert load_experiment(name).defaults["shift"] == 1.0
    assert load_experiment(name, wanted(None, "--shift", "3")).defaults["shift"] == 3.0
    (folder / name).write_text(HEAD + text.replace("default=1.0", "required=True"))
    sys.modules.pop("scripted", None)
    with pytest.raises(ConfigurationError, match=r"ends itself \(exit code 2\) .* give them default values"):
        load_experiment(name)


def test_a_module_that_was_run_gets_its_arguments_and_its_functions_travel_with_them(folder: Path) -> None:
    (folder / "scripted.py").write_text(
        HEAD + "import sys\n\na = made('mine', float(sys.argv[1]))\nb = made('other')\n"
    )
    found = load_experiment("scripted", Program.of("mine", {"arguments": ["4"]}, None))
    assert found.defaults["shift"] == 4.0
    del sys.modules["scripted"]
    assert b"square" in cloudpickle.dumps(found.trainer.function)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["script", "command", "notebook"])
def test_a_program_sweeps_and_is_reproduced_out_of_the_record(folder: Path, kind: str) -> None:
    text = HEAD + 'import sys\n\nmade("mine").sweep(trials=2, name="s", seed=3)\n'
    match kind:
        case "script":
            (folder / "scripted.py").write_text(text)
            _ended_well(program.start("scripted.py"))
            (folder / "scripted.py").unlink()
        case "command":
            _ended_well(program.start("-c", text))
        case "notebook":
            cells = [HEAD, "%config Application.log_level=30", 'made("mine").sweep(trials=2, name="s", seed=3)']
            run = "from IPython.core.interactiveshell import InteractiveShell as S\ns = S.instance()\n" + "\n".join(
                f"s.run_cell({cell!r}, store_history=True).raise_error()" for cell in cells
            )
            (folder / "kernel.py").write_text(run)
            _ended_well(program.start("kernel.py"))
            (folder / "kernel.py").unlink()
    said = _ended_well(program.hfsuite("reproduce", "s:best"))
    assert "All numbers are equal to the last bit" in said
    said = _ended_well(program.hfsuite("resume", "s"))
    assert "mine · s" in said


def _ended_well(running: subprocess.Popen[str]) -> str:
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, out + err
    return out + err
