"""Finds, in the text of a program, what may run code from the data that it reads: pickles, above all."""

import ast
from collections.abc import Iterator

SERIALISERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
UNSAFE = {"recv_pyobj", "send_pyobj", "read_pickle", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
LOADS = {"torch.load", "torch.serialization.load", "numpy.load", "yaml.load", "yaml.load_all"}
SAFE_YAML = {"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"}
FLAG = "allow_pickle"


def complaints(source: str) -> list[str]:
    """What is wrong with a program, each with its line; empty if nothing is.

    Names are followed through imports, not through assignments: the functions that load are refused wherever they are
    not called at once.
    """
    tree = ast.parse(source)
    known = _imported(tree)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found: list[str] = []
    for node in ast.walk(tree):
        problems = list(_problems(node, known))
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in called and _full_name(node, known) in LOADS:
            problems.append(f"{ast.unparse(node)} is handed on")
        found += [f"line {getattr(node, 'lineno', 0)}: {problem}" for problem in problems]
    return found


def _problems(node: ast.AST, known: dict[str, str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"imports {each.name}" for each in names if _head(each.name) in SERIALISERS)
        case ast.ImportFrom(module=module, names=names):
            if _head(module or "") in SERIALISERS:
                yield f"imports {module}"
            yield from (
                f"imports {module}.{each.name}"
                for each in names
                if each.name in UNSAFE or f"{module}.{each.name}" in LOADS
            )
        case ast.Attribute(attr=name) | ast.Name(id=name):
            if name in UNSAFE:
                yield f"{name} may run code"
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            if any(_constant(key) == FLAG and _constant(value) is not False for key, value in pairs):
                yield f"{FLAG} is not literally False"
        case ast.Call():
            yield from _call_problems(node, known)


def _call_problems(call: ast.Call, known: dict[str, str]) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    texts = [_constant(value) for value in [*call.args, *keywords.values()]]
    function = ast.unparse(call.func).rpartition(".")[2]
    if function in ("import_module", "__import__"):
        yield from (f"imports {text}" for text in texts if isinstance(text, str) and _head(text) in SERIALISERS)
    if function == "getattr":
        yield from (f"{text} may run code" for text in texts if text in UNSAFE | {"load"})
    if FLAG in keywords and _constant(keywords[FLAG]) is not False:
        yield f"{FLAG} is not literally False"
    match _full_name(call.func, known):
        case "torch.load" | "torch.serialization.load":
            if _constant(keywords.get("weights_only")) is not True:
                yield "torch.load without weights_only=True"
        case "numpy.load":
            if len(call.args) > 2 and _constant(call.args[2]) is not False:
                yield f"{FLAG} is not literally False"
        case "yaml.load" | "yaml.load_all":
            loader = keywords.get("Loader", call.args[1] if len(call.args) > 1 else None)
            if loader is None or ast.unparse(loader).rpartition(".")[2] not in SAFE_YAML:
                yield "yaml.load without a safe loader"


def _imported(tree: ast.AST) -> dict[str, str]:
    """Name in the program -> what was imported under it."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                each.asname or _head(each.name): each.name if each.asname else _head(each.name) for each in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            known |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return known


def _full_name(node: ast.AST, known: dict[str, str]) -> str:
    """`np.load` is `numpy.load` after `import numpy as np`; "" of what is no dotted name."""
    match node:
        case ast.Name(id=name):
            return known.get(name, name)
        case ast.Attribute(value=value, attr=name):
            before = _full_name(value, known)
            return f"{before}.{name}" if before else ""
    return ""


def _constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _head(name: str) -> str:
    return name.partition(".")[0]
