"""How Sphinx builds the documentation: ``sphinx-build -W -b html docs docs/_build/html``. Nothing is fetched."""

import sys
from importlib import import_module
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netcl.version import __version__

project = "netcl"
copyright = "the netcl developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Anchors as the tests, and other renderers of Markdown, make them from headings.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"netcl {release}"
html_static_path = ["_static"]
html_css_files = ["netcl.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


class Functions(SphinxDirective):
    """``.. functions:: MODULE ...``: a table of all that the modules' ``__all__`` lists, and an entry for each.

    They are documented under their public names, those of the ``currentmodule``.
    """

    required_arguments = 1
    optional_arguments = 1_000_000

    def run(self) -> list[nodes.Node]:
        names = sorted(name for module in self.arguments for name in import_module(module).__all__)
        table = ["", ".. autosummary::", "", *(f"   {name}" for name in names)]
        entries = [line for name in names for line in ("", f".. autofunction:: {name}")]
        return self.parse_text_to_nodes("\n".join([*table, *entries]))


class ArrayApiTable(SphinxDirective):
    """``.. array-api-table::``: each function of the Array API, where it computes, and whether it has a derivative."""

    def run(self) -> list[nodes.Node]:
        from array_api_table import rows

        lines = [
            "",
            ".. list-table::",
            "   :header-rows: 1",
            "",
            "   * - function",
            "     - computes",
            "     - derivative",
        ]
        for name, place, derivative in rows():
            lines += [f"   * - :func:`{name}`", f"     - {place}", f"     - {derivative}"]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> None:
    """What Sphinx calls when it reads this file."""
    app.add_directive("functions", Functions)
    app.add_directive("array-api-table", ArrayApiTable)
