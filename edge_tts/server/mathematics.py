r"""Formulas for the page: TeX as a tree of MathML elements, which the page builds without reading any markup.

What is wanted are formulas as small models write them, ``\frac{3}{4}`` or an ``aligned`` block; a text that is none
gives None, and the page shows it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert

LONGEST = 2000
"""Characters of a formula that is read."""
MOST_FORMULAS = 200
"""In one request."""
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
_TAGS = frozenset(
    [
        "math",
        "menclose",
        "mfrac",
        "mi",
        "mmultiscripts",
        "mn",
        "mo",
        "mover",
        "mpadded",
        "mphantom",
        "mprescripts",
        "mroot",
        "mrow",
        "mspace",
        "msqrt",
        "mstyle",
        "msub",
        "msubsup",
        "msup",
        "mtable",
        "mtd",
        "mtext",
        "mtr",
        "munder",
        "munderover",
        "none",
    ]
)
_ATTRIBUTES = frozenset(
    [
        "accent",
        "columnalign",
        "columnlines",
        "columnspacing",
        "depth",
        "display",
        "displaystyle",
        "fence",
        "form",
        "height",
        "largeop",
        "linethickness",
        "lspace",
        "mathsize",
        "mathvariant",
        "maxsize",
        "minsize",
        "movablelimits",
        "notation",
        "rowlines",
        "rowspacing",
        "rspace",
        "separator",
        "stretchy",
        "symmetric",
        "width",
    ]
)


def tree(tex: str, display: bool = False) -> list[Any] | None:
    """``tex`` as ``[tag, {attribute: value}, [child or text, ...]]``; None where it is no formula."""
    if len(tex) > LONGEST:
        return None
    try:
        root = ElementTree.fromstring(convert(tex, display="block" if display else "inline"))
        return _node(root)
    except Exception:  # the converter raises errors of many classes for texts that are no TeX
        return None


def _node(element: ElementTree.Element) -> list[Any]:
    """Raises ValueError for an element that is no MathML: text in a formula may hold any markup."""
    tag = element.tag.removeprefix(_NAMESPACE)
    if tag not in _TAGS:
        raise ValueError(tag)
    attributes = {name: value for name, value in element.attrib.items() if name in _ATTRIBUTES}
    return [tag, attributes, list(_children(element))]


def _children(element: ElementTree.Element) -> Iterator[Any]:
    if element.text:
        yield element.text
    for child in element:
        yield _node(child)
        if child.tail:
            yield child.tail
