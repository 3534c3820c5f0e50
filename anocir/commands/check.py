"""What this host gives and lacks, and what of a bundle it cannot give.

Side: host.  Cold.  Looks and changes nothing.
"""

from __future__ import annotations

from ..base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table
    from ..host.report import Finding

HELP = "tell what this host gives and lacks, and what of a bundle it cannot give"
USAGE = "[OPTIONS]"
OPTIONS: Table = (
    ("bundle", "b", "text", "", "DIR", "look at this bundle too"),
    ("format", "f", "choice", "text", "text|json", "output format"),
)
ARGS = (0, 0)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print the findings; 1 if something is missing that anocir, or the bundle, needs."""
    del args
    from ..host import report

    found = report.survey(settings)
    if options["bundle"]:
        found += _bundle(options["bundle"])
    if options["format"] == "json":
        from ..base import jsonio

        document = {
            "usable": all(finding.state != report.MISSING for finding in found),
            "findings": [finding.row() for finding in found],
        }
        log.result(jsonio.dumps(document, indent=4) + "\n")
    else:
        log.result("".join(_lines(finding) for finding in found))
    return 1 if any(finding.state == report.MISSING for finding in found) else 0


def _bundle(given: str) -> list[Finding]:
    from ..base import jsonio
    from ..host import facts, report
    from ..model.spec import whole

    bundle = facts.absolute(given)
    config = jsonio.load(f"{bundle}/config.json")
    whole.check(config)
    return report.bundle(config, facts.rootfs(config, bundle))


def _lines(finding: Finding) -> str:
    name = f"{finding.path}: " if finding.path else f"{finding.name}: "
    text = f"{finding.state:8} {name}{finding.text}\n"
    if finding.costs:
        text += f"{'':8}   {finding.costs}\n"
    if finding.remedy:
        text += f"{'':8}   do: {finding.remedy}\n"
    return text
