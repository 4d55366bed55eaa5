"""The oldest set of versions that is tested is the one that the package asks for."""

import re

from tests.paths import ROOT


def test_the_oldest_versions_are_the_lower_bounds():
    script = (ROOT / "scripts" / "test_matrix.sh").read_text()
    oldest, newest = (
        re.search(rf'^ +{name}\) echo "(.*)" ;;$', script, re.MULTILINE)[1].split() for name in ("oldest", "newest")
    )
    bounds = re.findall(r'^    "(\w+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert set(oldest) <= {f"{name}=={version}" for name, version in bounds}
    assert [pin.partition("==")[0] for pin in oldest] == newest
