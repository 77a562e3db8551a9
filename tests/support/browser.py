"""Pages in a browser: sizes of windows, and what a checker of accessibility says of a page."""

WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}


def serious_findings(page):
    """What axe finds that is serious or critical, and some of the places."""
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    return [(v["id"], [n["target"] for n in v["nodes"][:3]]) for v in serious]
