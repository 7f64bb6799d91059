"""The functions of the Array API, and the few beside them that ``netcl`` has too: all that these modules list."""

from typing import TYPE_CHECKING

from netcl.functional.casting import *
from netcl.functional.complex_parts import *
from netcl.functional.cumulative import *
from netcl.functional.deviation import *
from netcl.functional.einstein import *
from netcl.functional.elementwise import *
from netcl.functional.indexing import *
from netcl.functional.joining import *
from netcl.functional.linalg import *
from netcl.functional.ordering import *
from netcl.functional.reduction import *
from netcl.functional.repetition import *
from netcl.functional.searching import *
from netcl.functional.sets import *
from netcl.functional.shape import *
from netcl.functional.ternary import *

if not TYPE_CHECKING:  # a type checker follows the star imports, and cannot read a list that is computed
    __all__ = sorted(name for name, value in globals().items() if callable(value))
