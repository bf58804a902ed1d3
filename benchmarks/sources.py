"""Which code a benchmark measures, by its content: neither by its place nor its text.

From the modules that a benchmark names, every name is followed to the function, class
or constant that it means: through imports, also those inside of functions, and through
the exports of a chapter's ``__init__``, up to third-party packages. Each definition
that is reached has a hash of its syntax tree without docstrings, comments and imports,
in which a name of another module stands as what it means: ``np.exp`` as ``numpy.exp``,
``agent_file.write`` as ``write``. So definitions may move, and files be merged or
split, and no result is marked; any other change of code that is reached marks it.

Not followed are names in strings (``getattr``, ``import_module``), and what the
``__init__`` of a package executes when a module inside of it is imported.
"""

import ast
import functools
import hashlib
import symtable
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_MEASURED = "benchmarks.record"  # writes results down: it is not followed
MODULE_LEVEL = "module level"


def definitions(modules, root=ROOT):
    """Hash of every definition that some modules reach, their own included.

    Args:
        modules: List of dotted names, such as ``["benchmarks.tree_search"]``.
        root: Path of the folder from which the modules are imported.

    Returns:
        Dict of name to hash, sorted by name. Definitions of the same name in several
        modules have their hashes side by side; what a module executes besides is
        named ``module level``.

    Raises:
        ValueError: If a module is not in the folder, or a name not in its module.
    """
    closure = _Closure(root)
    for name in modules:
        closure.add_module(name, script=True)
    return closure.hashes()


def changed(old, new):
    """Names of the definitions that differ between two results, sorted."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


class _Module:
    """The top level of a file: what its names mean, and what it executes besides."""

    def __init__(self, name, path):
        self.package = name if path.is_dir() else name.rpartition(".")[0]
        self.imports = {}  # name: (module, attributes)
        self.statements = {}  # name: [(label, statement that binds it), ...]
        self.effects = []  # statements that do more than to bind names
        file = path / "__init__.py" if path.is_dir() else path
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        for statement in _tree(text).body:
            if not _is_no_code(statement):
                self._add(statement)
            if not isinstance(statement, _DEFINITIONS):
                self.imports |= _imports(statement, self.package)
        self.names = {n: (name, [n]) for n in self.statements} | self.imports

    def _add(self, statement):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        assigns = isinstance(statement, ast.Assign | ast.AnnAssign)
        if isinstance(statement, _DEFINITIONS):
            bound, effect = [statement.name], False
        elif assigns and all(isinstance(t, ast.Name | ast.Tuple) for t in targets):
            parts = [part for target in targets for part in ast.walk(target)]
            bound, effect = [p.id for p in parts if isinstance(p, ast.Name)], False
        else:
            symbols = _tables(statement)[0].get_symbols()
            bound, effect = [s.get_name() for s in symbols if s.is_assigned()], True
        if bound == ["__all__"]:
            return
        label = MODULE_LEVEL if effect else ", ".join(bound)
        for name in bound:
            self.statements.setdefault(name, []).append((label, statement))
        if effect:
            self.effects.append(statement)


class _Closure:
    """The definitions that are reached, and then what their names reach."""

    def __init__(self, root):
        self.root = root
        self.modules = {}
        self.queue, self.seen = [], set()

    def hashes(self):
        found = {}
        for module, label, statement in self.queue:  # which grows on the way
            code = self._code(statement, self._meanings(statement, module))
            digest = hashlib.sha256(code.encode()).hexdigest()[:16]
            found.setdefault(label, set()).add(digest)
        return {label: " ".join(sorted(found[label])) for label in sorted(found)}

    def add_module(self, name, script=False):
        """Reach all of a module, and what stands under ``__main__`` if a script."""
        for bound in self._module(name).statements:
            self._add_definition(name, bound)
        self._add_effects(name, script)

    def _add_definition(self, module, name):
        if module == NOT_MEASURED:
            return
        self._add_effects(module)
        for label, statement in self._module(module).statements[name]:
            if label != MODULE_LEVEL:
                self._add(module, label, statement)

    def _add_effects(self, module, script=False):
        for statement in self._module(module).effects:
            if script or not _is_for_main(statement):
                self._add(module, MODULE_LEVEL, statement)

    def _add(self, module, label, statement):
        if id(statement) not in self.seen:
            self.seen.add(id(statement))
            self.queue.append((module, label, statement))

    def _module(self, name):
        if name not in self.modules:
            path = self._path(name)
            if path is None:
                raise ValueError(
                    "The sources of a benchmark must be modules of the repository "
                    f"and names in them. Received: {name}"
                )
            self.modules[name] = _Module(name, path)
        return self.modules[name]

    def _path(self, name):
        path = self.root.joinpath(*name.split("."))
        file = path.with_suffix(".py")
        return file if file.is_file() else path if path.is_dir() else None

    def _meanings(self, statement, module):
        """Module and attributes of the names in a statement that are not local."""
        inside = _imports(statement, self._module(module).package)
        tables = _tables(statement)
        symbols = [symbol for table in tables for symbol in table.get_symbols()]
        used = {symbol.get_name() for symbol in symbols if symbol.is_global()}
        used |= set(tables[0].get_identifiers())
        names = self._module(module).names
        return {n: names[n] for n in used if n in names} | inside

    def _code(self, node, meanings):
        """A syntax tree as text, in which a name stands as what it means."""
        if isinstance(node, list):
            items = [self._code(n, meanings) for n in node if not _is_no_code(n)]
            return f"[{', '.join(items)}]" if items else ""
        if not isinstance(node, ast.AST):
            return repr(node)
        name, *attributes = _dotted(node)
        if name in meanings:
            module, first = meanings[name]
            return self._follow(module, [*first, *attributes])
        fields = []
        for field, value in ast.iter_fields(node):
            if value is not None and field not in ("ctx", "kind", "type_comment"):
                text = self._code(value, meanings)
                fields += [f"{field}={text}"] if text else []
        return f"{type(node).__name__}({', '.join(fields)})"

    def _follow(self, here, attributes):
        """Reach what attributes of a module mean, and return that as text."""
        if self._path(here.partition(".")[0]) is None:  # third-party
            return ".".join([here, *attributes])
        for n, name in enumerate(attributes):
            module = self._module(here)
            if name in module.statements:
                self._add_definition(here, name)
                return ".".join(attributes[n:])
            source, first = module.imports.get(name, (here, [name]))
            if (source, first) != (here, [name]):
                return self._follow(source, [*first, *attributes[n + 1 :]])
            here = f"{here}.{name}"
        self.add_module(here)
        return "module"


_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _imports(node, package):
    """What the imports in a statement bind: name to module and attributes."""
    found = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            for name in part.names:
                first = name.name.partition(".")[0]
                found[name.asname or first] = (name.name if name.asname else first, [])
        elif isinstance(part, ast.ImportFrom):
            module = resolve_name("." * part.level + (part.module or ""), package)
            for name in part.names:
                found[name.asname or name.name] = (module, [name.name])
    return found


@functools.cache
def _tree(text):
    """The same tree for the same text: results share most of their sources."""
    return ast.parse(text)


@functools.cache
def _tables(node):
    """Symbol tables of a statement and of all scopes in it, the outermost first."""
    tables = [symtable.symtable(ast.unparse(node), "statement", "exec")]
    for table in tables:  # which grows on the way
        tables += table.get_children()
    return tables


def _dotted(node):
    """``["a", "b", "c"]`` of the expression ``a.b.c``, ``[None]`` of another."""
    attributes = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else None, *reversed(attributes)]


def _is_no_code(node):
    """Whether it is an import, a docstring or ``pass``."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)


def _is_for_main(statement):
    """Whether it begins with ``if __name__ == ...``."""
    test = getattr(statement, "test", statement)
    names = [n.id for n in ast.walk(test) if isinstance(n, ast.Name)]
    return isinstance(statement, ast.If) and "__name__" in names
