"""What a module reads beside itself is found by reading its code, and lies where the exported one looks for it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from hfsuite.errors import ConfigurationError
from hfsuite.reproduce import beside as beside_
from hfsuite.reproduce.beside import beside
from hfsuite.reproduce.named_paths import Named

HEAD = '"""Mine."""\nfrom __future__ import annotations\n\nimport os\nfrom pathlib import Path\n\n'
PARENT = "Path(__file__).parent"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (f'open({PARENT} / "texts.csv")', ["texts.csv"]),
        (f'open(str({PARENT}.resolve() / "data" / "x.csv"))', ["data/x.csv"]),
        ('open(Path(__file__).with_name("texts.csv"))', ["texts.csv"]),
        ('open(Path(__file__).resolve().parent.joinpath("data", "x.csv"))', ["data/x.csv"]),
        ('open(os.path.join(os.path.dirname(__file__), "texts.csv"))', ["texts.csv"]),
        ('open(os.path.dirname(os.path.abspath(__file__)) + "/texts.csv")', ["texts.csv"]),
        (f'open(f"{{{PARENT}}}/texts.csv")', ["texts.csv"]),
        (f'HERE = {PARENT}\nDATA = HERE / "data"\n\ndef rows():\n    return open(DATA / "x.csv")', ["data/x.csv"]),
        (f'def rows(name):\n    return open({PARENT} / name)\n\nrows("texts.csv")', ["texts.csv"]),
        (f'def at(name="texts.csv"):\n    return {PARENT} / name\n\nopen(at())', ["texts.csv"]),
        (f'NAMES = ("a.csv", "b.csv")\nfor name in NAMES:\n    open({PARENT} / name)', ["a.csv", "b.csv"]),
        (f'parts = {{name: open({PARENT} / f"{{name}}.csv") for name in ["a", "b"]}}', ["a.csv", "b.csv"]),
        (f'for each in {PARENT}.glob("?.csv"):\n    open(each)', ["a.csv", "b.csv"]),
        (f'def rows(name):\n    return open({PARENT} / "data" / name)', ["data"]),
        (f'class Rows:\n    where = {PARENT} / "texts.csv"\n    text = "where"', ["texts.csv"]),
        (
            f'DATA = {PARENT} / "texts.csv"\nif not DATA.exists():\n    raise OSError(f"{{DATA}} is gone")',
            ["texts.csv"],
        ),
        (f"import sys\nsys.path.insert(0, str({PARENT}))\nsys.path.append(str({PARENT}.parent))", []),
        ("print(__file__)", []),
        (f'DATA = open({PARENT} / "texts.csv").read()\nprint(DATA)', ["texts.csv"]),
        (
            f'HERE = {PARENT}\nDATA = open(HERE / "a.csv")\nMORE: object = open(HERE / "b.csv")\nprint(DATA, MORE)',
            ["a.csv", "b.csv"],
        ),
        (
            f'from argparse import ArgumentParser as A\n\np = A()\np.add_argument("--my-data", default="texts.csv")\n'
            f"given = p.parse_args([])\nopen({PARENT} / given.my_data)",
            ["texts.csv"],
        ),
    ],
)
def test_a_path_from_the_modules_file_is_followed(own_directory: Path, code: str, found: list[str]) -> None:
    for name in ("texts.csv", "a.csv", "b.csv", "data/x.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    Path("mine.py").write_text(HEAD + code)
    lies = beside(HEAD + code, "mine", taken=["train.py"])
    assert sorted(lies.files) == found
    assert (lies.code, lies.remarks) == (HEAD + code, [])


def test_a_path_from_the_recorded_arguments_is_followed(own_directory: Path) -> None:
    Path("other.csv").write_text("x")
    declared = 'p.add_argument("-d", "--data", default="texts.csv")\ngiven = p.parse_args()'
    code = f"{HEAD}{declared}\nopen({PARENT} / given.data)"
    Path("mine.py").write_text(code)
    for arguments in (["--data", "other.csv"], ["--data=other.csv"], ["-d", "other.csv"]):
        assert sorted(beside(code, "mine", taken=[], arguments=arguments).files) == ["other.csv"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("rows/x.csv", 'Path(__file__).parent.parent / "rows/x.csv"'),
        ("of/mine.csv", 'Path(__file__).with_suffix(".csv")'),
        ("of/train.py", f'{PARENT} / "train.py"'),
    ],
    ids=["above", "by the module's own name", "under a name that is taken"],
)
@pytest.mark.parametrize("module", ["of.mine", "of/mine.py"], ids=["a module", "a program"])
def test_what_cannot_lie_beside_the_exported_module_lies_apart(
    own_directory: Path, path: str, code: str, module: str
) -> None:
    text = f"{HEAD}FOUND = ({code}).read_text()\n"
    for name, content in {"of/mine.py": text, path: "rows"}.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    lies = beside(text, module, taken=["train.py"])
    folder = own_directory / "exported"
    lies.copy(folder)
    (folder / "experiment.py").write_text(lies.code)
    Path(path).unlink()
    assert runpy.run_path(str(folder / "experiment.py"))["FOUND"] == "rows"


def test_what_is_not_taken_along_is_named(own_directory: Path) -> None:
    code = HEAD + (
        f'def rows(name):\n    print({PARENT} / "gone.csv")\n    pd.read_csv({PARENT} / name)\n'
        '    load_dataset("csv", data_files={"train": "data/*.csv"})\n    open("texts.csv", "w")\n'
    )
    Path("mine.py").write_text(code)
    remarks = beside(code, "mine", taken=[]).remarks
    assert [each.split(",")[0].split(":")[0] for each in remarks] == [
        "experiment.py names gone.csv",
        "experiment.py reads something beside itself that only a run knows by name",
        "experiment.py opens data/*.csv",
    ]


@pytest.mark.parametrize(
    ("code", "opened"),
    [
        ('open("data/x.csv", encoding="utf-8")', ["data/x.csv"]),
        ('DATA = "x.csv"\npd.read_csv(DATA)', ["x.csv"]),
        ('Path("data", "x.csv").read_text()', ["data/x.csv"]),
        ('Path("x.csv").open()', ["x.csv"]),
        ('load_dataset("csv", data_files=["a.csv", "b.csv"])', ["a.csv", "b.csv"]),
        ('load_dataset("me/reviews", data_files="a.csv")', []),
        ('pd.read_csv("https://example.org/x.csv")', []),
        ('open("/data/x.csv")', []),
        ('open("out.txt", "w")', []),
        ('Path("out.txt").open(mode="a")', []),
        ('pd.read_sql("select * from x")', []),
    ],
)
def test_a_relative_path_that_is_opened_is_named(code: str, opened: list[str]) -> None:
    assert Named(HEAD + code, Path("/of/mine.py")).opened() == opened


@pytest.mark.parametrize("module", ["mine", "tune.py"])
def test_where_the_module_is_gone_what_lay_beside_it_is_named(own_directory: Path, module: str) -> None:
    with pytest.raises(ConfigurationError, match=r"it reads what lay beside it \(texts.csv\); export where"):
        beside(f'{HEAD}open({PARENT} / "texts.csv")', module, taken=[])
    assert beside(HEAD, module, taken=[]).files == {}


def test_more_than_the_limit_is_refused_with_all_sizes(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_, "LIMIT_MB", 0.001)
    code = f'{HEAD}open({PARENT} / "texts.csv")'
    Path("mine.py").write_text(code)
    Path("texts.csv").write_text("x" * 2_000_000)
    with pytest.raises(ConfigurationError, match=r"more than the 0.001 MB that are taken along \(texts.csv 2 MB\)"):
        beside(code, "mine", taken=[])
