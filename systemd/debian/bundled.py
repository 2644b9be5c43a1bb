"""What the package carries besides the agent: paragraphs for debian/copyright, from the distributions' own words."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions


def licence_of(distribution: Distribution) -> str:
    """As the distribution calls it, in one line: its expression, else its classifiers, else its free text."""
    found = distribution.metadata
    classifiers = [one.split(" :: ")[-1] for one in found.get_all("Classifier") or [] if one.startswith("License ::")]
    return (found["License-Expression"] or ", ".join(classifiers) or found["License"] or "unknown").splitlines()[0]


def paragraph(of: Distribution) -> str:
    directory = f"{of.name.replace('-', '_').lower()}-{of.version}.dist-info"
    return (
        f"\nFiles: bundled/{of.name}/*\nCopyright: the authors of {of.name} {of.version}\n"
        f"License: {of.name}-licence\n {licence_of(of)}; the text is in the directory {directory}.\n"
    )


packages = next(path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages"))
others = [one for one in distributions(path=[packages]) if one.name != "learnpack-agent"]
sys.stdout.write("".join(map(paragraph, sorted(others, key=lambda one: one.name.lower()))))
