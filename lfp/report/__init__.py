"""The report: results as text, tables, sentences, figures, HTML and SVG. Called, it is the verb `lfp.report`."""

import sys

from lfp.util.dependencies import VerbModule

sys.modules[__name__].__class__ = VerbModule
