"""The rules of the code, checked on the source: levels, libraries, lengths, docstrings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import perceptual
from perceptual import fast

# A file imports only from lower levels. No file imports from the package itself, perceptual/__init__.py.
LEVELS = {
    1: {"cache", "errors", "events", "functional", "gpu", "lbfgs", "memory"},
    2: {"config", "devices", "files", "motion", "quality", "resampling", "web"},
    3: {"foreign", "images", "networks"},
    4: {"checkpoints", "data", "degradation", "fast", "losses", "video"},
    5: {"apply", "optimize"},
    6: {"cluster", "export", "measure", "tasks", "webcam"},
    7: {"train"},
    8: {"reproduce", "serve", "studio"},
    9: {"cli"},
    10: {"__main__"},
}
IMPORTERS = {  # the only parts that import a library
    "rich": {"cli"},
    "tyro": {"cli"},
    "gradio": {"studio"},
    "fastapi": {"serve", "studio"},
    "prometheus_client": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve", "studio", "web"},
    "pandas": {"studio"},
    "ray": {"cluster"},
    "fsspec": {"cluster"},
    "s3fs": {"cluster"},
    "PIL": {"images"},
    "cv2": {"images", "motion", "webcam"},
    "av": {"video"},
    "pygame": {"webcam"},
    "safetensors": {"checkpoints", "losses"},
    "huggingface_hub": {"checkpoints"},
    "accelerate": {"train"},
    "matplotlib": {"reproduce"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "onnxscript": {"export"},
    "openvino": set(),
    "skimage": {"apply", "data"},
    "ctypes": {"devices", "fast", "memory"},
    "pickle": set(),
    "spandrel": {"checkpoints"},
    "torchvision": set(),
}
FILE_LINES, FUNCTION_LINES, PARAMETERS, POSITIONAL, DEFAULTS = 400, 40, 6, 2, 3

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "perceptual"
LEVEL_OF = {part: level for level, parts in LEVELS.items() for part in parts}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
INSIDE = {path: tree for path, tree in TREES.items() if path != PACKAGE / "__init__.py"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def part_of(path: Path) -> str:
    """The file's own name, or that of its folder in the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(absolute module, line) of every import, in functions too; `from perceptual import x` gives perceptual.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "perceptual":
                yield from ((f"perceptual.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """(dotted name, node) of every function, nested ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            if isinstance(node, Function):
                yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def public(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """(dotted name, node) of what others may call: classes, functions, methods and __init__."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                methods = (child for child in node.body if isinstance(child, Function))
                yield from ((f"{node.name}.{m.name}", m) for m in methods if m.name[0] != "_" or m.name == "__init__")


def test_every_part_has_one_level() -> None:
    assert len(LEVEL_OF) == sum(map(len, LEVELS.values()))
    assert set(LEVEL_OF) == {part_of(path) for path in INSIDE}


def test_imports_only_go_down() -> None:
    wrong = []
    for path, tree in INSIDE.items():
        for module, line in modules(tree):
            other = module.split(".")[1] if module.startswith("perceptual.") else None
            if other in LEVEL_OF and other != part_of(path) and LEVEL_OF[other] >= LEVEL_OF[part_of(path)]:
                wrong.append(f"{path.name}:{line} imports {other}")
    assert wrong == []


def test_no_file_imports_from_the_package_itself() -> None:
    wrong = []
    for path, tree in INSIDE.items():
        for module, line in modules(tree):
            itself = module == "perceptual" or (
                module.startswith("perceptual.") and module.split(".")[1] not in LEVEL_OF
            )
            if itself or module.startswith("."):
                wrong.append(f"{path.name}:{line} imports {module}")
    assert wrong == []


def test_nothing_imports_the_command() -> None:
    outside = {path: tree for path, tree in INSIDE.items() if part_of(path) not in ("cli", "__main__")}
    importers = {p.name for p, tree in outside.items() if any(m.startswith("perceptual.cli") for m, _ in modules(tree))}
    assert importers == set()


def test_only_the_command_imports_the_studio_and_the_service() -> None:
    for part in ("studio", "serve"):
        others = {path: tree for path, tree in INSIDE.items() if part_of(path) not in ("cli", part)}
        start = f"perceptual.{part}"
        assert [p.name for p, tree in others.items() if any(m.startswith(start) for m, _ in modules(tree))] == []


def test_every_public_name_exists_and_is_imported_on_first_use() -> None:
    assert len(perceptual.__all__) > 40
    assert [getattr(perceptual, name).__name__ for name in perceptual.__all__] == perceptual.__all__
    code = "import sys, perceptual; assert 'torch' not in sys.modules; perceptual.luma; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Of every module, in functions too: the modules that it imports, directly or not, do not include itself."""
    names = {".".join(("perceptual", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in INSIDE}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    direct = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ImportFrom) and node.module in names:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(names)
                direct[name] |= inner or {node.module}
            elif isinstance(node, ast.ImportFrom) and node.module == "perceptual":
                direct[name] |= {f"perceptual.{alias.name}" for alias in node.names} & set(names)
    for name in names:
        seen, ahead = set(), list(direct[name])
        while ahead:
            if (other := ahead.pop()) not in seen:
                seen.add(other)
                ahead += direct[other]
        assert name not in seen, name


def test_a_library_is_imported_by_its_parts_only() -> None:
    wrong = []
    for path, tree in TREES.items():
        for module, line in modules(tree):
            parts = IMPORTERS.get(module.split(".")[0])
            if parts is not None and part_of(path) not in parts:
                wrong.append(f"{path.name}:{line} imports {module}")
    assert wrong == []


def test_other_parts_import_from_fast_itself_only() -> None:
    wrong = []
    for path, tree in TREES.items():
        if part_of(path) != "fast":
            inside = [(module, line) for module, line in modules(tree) if module.startswith("perceptual.fast.")]
            wrong += [f"{path.name}:{line} imports {module}" for module, line in inside]
            wrong += [
                f"{path.name}:{node.lineno} imports {alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "perceptual.fast"
                for alias in node.names
                if alias.name not in fast.__all__
            ]
    assert wrong == []


def test_only_the_command_prints() -> None:
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            prints = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            streams = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")
            if (prints or streams) and part_of(path) != "cli":
                wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


def test_pickles_are_read_by_weights_only() -> None:
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if options.get("weights_only") != "True":
                    wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in TREES}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_its_budget() -> None:
    lengths = {
        f"{path.name}:{name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in TREES.items()
        for name, node in functions(tree)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_public_signatures_are_short_and_name_their_options() -> None:
    wrong = []
    for path, tree in TREES.items():
        for name, node in public(tree):
            if isinstance(node, ast.ClassDef):
                continue
            given = node.args
            positional = [a.arg for a in given.posonlyargs + given.args if a.arg not in ("self", "cls")]
            defaults = len(given.defaults) + sum(value is not None for value in given.kw_defaults)
            if len(positional) + len(given.kwonlyargs) > PARAMETERS:
                wrong.append(f"{path.name}:{name} has more than {PARAMETERS} parameters")
            if defaults > DEFAULTS and len(positional) > POSITIONAL:
                wrong.append(f"{path.name}:{name} has {len(positional)} positional parameters")
    assert wrong == []


def test_every_public_thing_says_what_it_is() -> None:
    """__init__, forward and compare are told in the docstring of their class."""
    silent = [path.name for path, tree in TREES.items() if not ast.get_docstring(tree)]
    for path, tree in TREES.items():
        for name, node in public(tree):
            if not ast.get_docstring(node) and name.split(".")[-1] not in ("__init__", "forward", "compare"):
                silent.append(f"{path.name}:{name}")
    assert silent == []


def test_a_flag_named_in_a_sentence_is_a_flag_of_the_command() -> None:
    flags = {"help", "help-all", "json", "no", "print-completion", "quiet", "version"}
    flags |= {"force-reinstall"}  # of pip
    for tree in (tree for path, tree in TREES.items() if part_of(path) in ("config", "cli", "tasks")):
        nodes = list(ast.walk(tree))
        named = [k.value for node in nodes if isinstance(node, ast.Call) for k in node.keywords if k.arg == "name"]
        flags |= {value.value for value in named if isinstance(value, ast.Constant)}  # tyro.conf.arg(name="from")
        fields = [node for node in nodes if isinstance(node, ast.AnnAssign)]
        flags |= {ast.unparse(node.target).replace("_", "-") for node in fields}
        flags |= {f"no-{ast.unparse(node.target)}" for node in fields if ast.unparse(node.annotation) == "bool"}
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = re.findall(r"(?<!\S)--([a-z][a-z.-]*[a-z])", node.value)
                wrong += [f"{path.name}:{node.lineno} --{flag}" for flag in named if flag not in flags]
    assert wrong == []


def test_importing_the_command_is_light() -> None:
    heavy = ("torch", "PIL", "cv2", "numpy", "safetensors", "accelerate", "av", "pygame")
    code = f"import sys, perceptual.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    place = re.compile(rb"(?<![\w.>])/(?:home|Users|root|work)/\w")
    folders = [ROOT / name for name in ("src", "docs", "benchmarks", "examples", "tools", ".github")]
    files = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    files += [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), ROOT / "Makefile"]
    wrong = [str(p.relative_to(ROOT)) for p in files if p.is_file() and place.search(p.read_bytes())]
    assert wrong == []


TESTS = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tests").rglob("test_*.py"))}


def test_no_test_hides_another_of_its_name() -> None:
    names = [(path.name, node.name) for path, tree in TESTS.items() for node in tree.body if isinstance(node, Function)]
    assert len(names) == len(set(names))


def test_no_file_of_tests_is_longer_than_600_lines() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in TESTS}
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}
