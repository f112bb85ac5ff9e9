"""What a browser test starts from: a fresh clone of this checkout and an empty browser."""

import subprocess
from pathlib import Path

import pytest

from labkit import doctor

ROOT = Path(__file__).parents[2]
# As root Chromium needs --no-sandbox; the others keep it from calling home, where a closed network
# refuses it many times a second.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What somebody gets who clones the last commit."""
    if not (ROOT / ".git").exists():
        pytest.skip(f"{ROOT} is no git checkout, so there is nothing to clone")
    target = tmp_path_factory.mktemp("fresh") / "labkit"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, target], check=True)
    return target


@pytest.fixture(scope="module")
def chromium():
    """The path of a Chromium to drive."""
    found = doctor.chromium()
    if found is None:
        pytest.skip("no browser: apt install chromium, or set LABKIT_CHROMIUM")
    return found


@pytest.fixture
def page(chromium, tmp_path):
    """A page of a new browser; a test that fails leaves a picture of it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        try:
            yield browser.new_page(viewport={"width": 1400, "height": 1000})
        finally:
            browser.close()
