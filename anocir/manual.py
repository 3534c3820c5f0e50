"""Help, completion and the man page: all from the tables that the parser reads.

Side: host.  Cold.
"""

from __future__ import annotations

import posix

from . import __version__, cli, errors
from .base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

    from .cli import Option, Options, Settings, Table

# Every command in one group, and an example for each (tests/unit/test_manual.py).
GROUPS: Final = (
    ("containers", ("create", "start", "run", "exec", "kill", "delete", "state", "list")),
    (
        "running containers",
        ("ps", "pause", "resume", "update", "events", "checkpoint", "restore", "mounts", "diff"),
    ),
    ("bundles and hosts", ("spec", "validate", "explain", "check", "features")),
    ("the program itself", ("repack", "completion")),
)
EXAMPLES: Final = {
    "create": "anocir create --bundle /containers/web web",
    "start": "anocir start web",
    "run": "anocir run --bundle /containers/web web",
    "exec": "anocir exec --tty web /bin/sh",
    "kill": "anocir kill web TERM",
    "delete": "anocir delete --force web",
    "state": "anocir state web",
    "list": "anocir list --format json",
    "ps": "anocir ps web -o pid,comm",
    "pause": "anocir pause web",
    "resume": "anocir resume web",
    "update": "anocir update --memory 256m --pids-limit 100 web\n"
    '  echo \'{"memory": {"limit": 268435456}, "pids": {"limit": 100}}\' | anocir update -r - web',
    "events": "anocir events --interval 10s web",
    "checkpoint": "anocir checkpoint --image-path /var/lib/images/web web",
    "restore": "anocir restore --image-path /var/lib/images/web --bundle /containers/web web",
    "mounts": "anocir mounts add web mounts.json",
    "diff": "anocir diff web",
    "spec": "anocir spec --rootless",
    "validate": "anocir validate --bundle /containers/web",
    "explain": "anocir explain --bundle /containers/web",
    "check": "anocir check --bundle /containers/web",
    "features": "anocir features",
    "repack": "python3.12 /usr/local/bin/anocir repack",
    "completion": "anocir completion bash > /etc/bash_completion.d/anocir",
}
# The ID in their usage is that of a container which is not there yet: nothing to complete.
_MAKERS: Final = ("create", "run", "restore")


def unknown(name: str) -> errors.Error:
    """Return the error for a command that there is not, with the one that may be meant."""
    hint = "anocir --help lists the commands"
    if like := closest(name.lower(), cli.COMMANDS, 0.6):
        hint = f'did you mean "{like}"? {hint}'
    return errors.Error(f'unknown command "{name}"', hint, 3)


def like(name: str, *tables: Table) -> str:
    """Ask for the option that may have been meant by one that there is not."""
    known = {row[0] for table in tables for row in table if row[5]}
    like = closest(name.lower(), sorted(known), 0.7)
    return f"did you mean --{like}? " if like else ""


def closest(word: str, known: Iterable[str], least: float) -> str:
    """Return the known word that is most like another, first one of the same letters, or ""."""
    import difflib

    letters = sorted(word)
    found = [one for one in known if sorted(one) == letters]
    return (found or difflib.get_close_matches(word, known, 1, least) or [""])[0]


def print_help(settings: Settings, _options: Options, args: list[str]) -> int:
    """Print the help of the program or of one command."""
    if args and args[0] not in cli.COMMANDS:
        raise unknown(args[0])
    text = _command_help(args[0]) if args else _help()
    log.result(_coloured(text) if _colour() else text)
    if args:
        # Podman and CRI-O run `checkpoint --help` and take exit status 0 for "supported".
        available = getattr(cli.load(args[0]), "available", None)
        if available:
            available(settings)
    return 0


def _colour() -> bool:
    """Tell whether stdout is a terminal whose user has nothing against colours (no-color.org)."""
    if posix.environ.get(b"NO_COLOR") or posix.environ.get(b"TERM") in (None, b"dumb"):
        return False
    return posix.isatty(1)


def _coloured(text: str) -> str:
    lines = [
        f"\x1b[1m{line}\x1b[0m" if line[-1:] == ":" and line[:1] != " " else line
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def grouped() -> list[tuple[str, list[str]]]:
    """Return the commands that are there, by group, in the order of the help."""
    return [
        (title, [name for name in names if name in cli.COMMANDS])
        for title, names in GROUPS
        if any(name in cli.COMMANDS for name in names)
    ]


def _help() -> str:
    lines = [
        "anocir runs containers as the OCI Runtime Specification says",
        "",
        "usage: anocir [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]",
    ]
    for title, names in grouped():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<10} {cli.load(name).HELP}" for name in names]
    lines += ["", "global options:", *_rows((*cli.GLOBALS, cli.HELP_ROW, cli.VERSION_ROW)), ""]
    lines += ["anocir COMMAND --help prints the options of a command, man anocir everything", ""]
    return "\n".join(lines)


def _command_help(name: str) -> str:
    command = cli.load(name)
    lines = [command.HELP, "", f"usage: anocir [GLOBAL OPTIONS] {name} {command.USAGE}", ""]
    lines += ["options:", *_rows((*command.OPTIONS, cli.HELP_ROW)), ""]
    lines += ["example:", f"  {EXAMPLES[name]}", ""]
    return "\n".join(lines)


def _rows(table: Table) -> list[str]:
    """Lay out a table: the option on the left, its help on the right in lines of 100."""
    lines = []
    for row in visible(table):
        _, _, kind, default, _, text = row
        option = _spelled(row)
        words = text.split()
        if kind == "choice" and default and "default" not in text:
            words += ["(default", f"{default})"]
        line = f"  {option:<32}" if len(option) <= 32 else f"  {option}\n{'':34}"
        width = 34
        for word in words:
            if width + 1 + len(word) > 100:
                line += f"\n{'':34}"
                width = 34
            line += f" {word}"
            width += 1 + len(word)
        lines.append(line)
    return lines


def visible(table: Table) -> list[Option]:
    """Return the rows of a table that are not hidden."""
    return [row for row in table if row[5]]


def _spelled(row: Option) -> str:
    name, short, _, _, metavar, _ = row
    return (f"-{short}, " if short else "    ") + f"--{name}" + (metavar and f" {metavar}")


def words_of(table: Table) -> list[str]:
    """Return the options of a table as they are typed, long ones first."""
    rows = visible(table)
    return [f"--{row[0]}" for row in rows] + [f"-{row[1]}" for row in rows if row[1]]


def with_id() -> list[str]:
    """Return the commands that take the id of a container that is there: their usage says so."""
    return [
        name
        for name in cli.COMMANDS
        if name not in _MAKERS and "ID" in cli.load(name).USAGE.split()
    ]


# completion -------------------------------------------------------------------------------------


def _choices(table: Table) -> dict[str, list[str]]:
    """Return the words that may follow an option: those of a choice."""
    return {
        word: metavar.split("|")
        for name, short, kind, _, metavar, _ in visible(table)
        if kind == "choice"
        for word in (f"--{name}", f"-{short}" if short else "")
        if word
    }


def _valued(tables: Sequence[Table]) -> list[str]:
    """Return the options that take a value."""
    words = []
    for table in tables:
        for row in visible(table):
            if row[2] != "flag":
                words += [f"--{row[0]}", *([f"-{row[1]}"] if row[1] else [])]
    return sorted(set(words))


def _tables() -> dict[str, Table]:
    tables: dict[str, Table] = {"": (*cli.GLOBALS, cli.HELP_ROW, cli.VERSION_ROW)}
    for name in cli.COMMANDS:
        tables[name] = (*cli.load(name).OPTIONS, cli.HELP_ROW)
    return tables


def completion(shell: str) -> str:
    """Return the completion script for bash, zsh or fish."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _cases(indent: str) -> str:
    """Return the branches of a shell's case that set `words` by command and last word."""
    tables = _tables()
    lines = []
    # A command's own options before the global ones of the same name.
    for name in sorted(tables, reverse=True):
        for option, words in _choices(tables[name]).items():
            lines.append(f"{indent}{name or '*'}:{option}) words='{' '.join(words)}' ;;")
    files = "|".join(f"*:{option}" for option in _valued(list(tables.values())))
    lines.append(f"{indent}{files}) files=1 ;;")
    for name, table in tables.items():
        words = words_of(table) + (list(cli.COMMANDS) if not name else [])
        lines.append(f"{indent}{name}:*) words='{' '.join(words)}' ;;")
    return "\n".join(lines)


_WALK: Final = """\
    local command='' root='' index word words='' files='' skip=''
    for ((index = {first}; index < {current}; index++)); do
        word="{array}"
        if [ -n "$skip" ]; then
            [ "$skip" = --root ] && root="$word"
            skip=''
        else
            case "$word" in
                {valued}) skip="$word" ;;
                --root=*) root="${{word#--root=}}" ;;
                -*) ;;
                *) [ -n "$command" ] || command="$word" ;;
            esac
        fi
    done
    case "$command:$previous" in
{cases}
    esac
    case "$current:$command" in
        -*:*) ;;
        *:{with_id})
            words="$words $(anocir ${{root:+--root "$root"}} list --quiet 2>/dev/null)" ;;
    esac
"""


def _walk(first: int, current: str, array: str) -> str:
    return _WALK.format(
        first=first,
        current=current,
        array=array,
        valued="|".join(_valued([cli.GLOBALS])),
        cases=_cases("        "),
        with_id="|*:".join(with_id()),
    )


def _bash() -> str:
    return (
        "# bash completion for anocir; written by `anocir completion bash`\n"
        "_anocir() {\n"
        '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"\n'
        + _walk(1, "COMP_CWORD", "${COMP_WORDS[index]}")
        + '    if [ -n "$files" ]; then\n'
        '        COMPREPLY=($(compgen -f -- "$current"))\n'
        "    else\n"
        '        COMPREPLY=($(compgen -W "$words" -- "$current"))\n'
        "    fi\n"
        "}\n"
        "complete -F _anocir anocir\n"
    )


def _zsh() -> str:
    return (
        "#compdef anocir\n"
        "# zsh completion for anocir; written by `anocir completion zsh`\n"
        "_anocir() {\n"
        '    local current="$words[CURRENT]" previous="$words[CURRENT-1]"\n'
        '    local -a typed=("${words[@]}")\n'
        + _walk(2, "CURRENT", "${typed[index]}").replace(" words=''", "\n    local words=''")
        + '    if [ -n "$files" ]; then\n'
        "        _files\n"
        "    else\n"
        "        compadd -- ${=words}\n"
        "    fi\n"
        "}\n"
        'if [ "$funcstack[1]" = _anocir ]; then _anocir; else compdef _anocir anocir; fi\n'
    )


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish() -> str:
    seen = " ".join(cli.COMMANDS)
    lines = [
        "# fish completion for anocir; written by `anocir completion fish`",
        "complete -c anocir -f",
    ]
    completed = with_id()
    for name, table in _tables().items():
        where = f"__fish_seen_subcommand_from {name}" if name else ""
        if not name:
            for command in cli.COMMANDS:
                lines.append(
                    f"complete -c anocir -n 'not __fish_seen_subcommand_from {seen}' "
                    f"-a {command} -d {_fish_quoted(cli.load(command).HELP)}"
                )
        elif name in completed:
            lines.append(f"complete -c anocir -n '{where}' -a '(anocir list --quiet 2>/dev/null)'")
        for option, short, kind, _, metavar, text in visible(table):
            line = "complete -c anocir" + (f" -n '{where}'" if where else "") + f" -l {option}"
            line += f" -s {short}" if short else ""
            if kind == "choice":
                line += f" -x -a '{' '.join(metavar.split('|'))}'"
            elif kind != "flag":
                line += " -r -F" if metavar in ("FILE", "DIR", "PATH") else " -x"
            lines.append(f"{line} -d {_fish_quoted(text)}")
    return "\n".join([*lines, ""])


# the man page -----------------------------------------------------------------------------------


def _roff(text: str) -> str:
    """Return text in which nothing is a request or an escape of troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join("\\&" + line if line[:1] == "." else line for line in text.split("\n"))


def _roff_rows(table: Table) -> list[str]:
    lines = []
    for row in visible(table):
        lines += [".TP", f"\\fB{_roff(_spelled(row).strip())}\\fR", _roff(row[5])]
    return lines


_STATUS: Final = (
    ("0", "done; for run and exec in the foreground: the program ended with 0"),
    ("1", "an error, told in one line on standard error"),
    ("3", "an unknown command"),
    ("128+N", "run, exec in the foreground: the program was ended by signal N"),
    ("255", "exec: it could not run the program"),
    ("other", "run, exec in the foreground: the status of the program"),
)
_FILES: Final = (
    ("/run/anocir/ID", "state of a container made by root; --root changes it"),
    ("$XDG_RUNTIME_DIR/anocir/ID", "the same for a user without root privileges"),
    ("config.json", "the configuration in a bundle, see the OCI Runtime Specification"),
)
# What mount(8) and the specification do not tell; tests/repo/test_new_words.py compares with what
# is read.
_MOUNT_OPTIONS: Final = (
    ("tmpcopyup", "for a tmpfs: it begins with a copy of what the image has at its place"),
    ("copy-symlink", "for a bind mount whose source is a symbolic link: the link is made anew"),
    ("src-nofollow", "a source that is a symbolic link is not followed: the link is mounted"),
    ("dest-nofollow", "a destination that is a symbolic link is not followed: it is covered"),
    ("idmap, idmap=uids=FROM-TO-SIZE;gids=...",
     "the files of a bind mount appear with other owners: those of the container's user namespace, "
     "or as listed, with # between them"),
    ("ridmap, ridmap=...", "as idmap, for the mounts below it too"),
    ("rro, rnosuid, rnodev, rnoexec, ...",
     "a flag with r before it is for the mounts below it too (Linux 5.12)"),
)  # fmt: skip
_ANNOTATIONS: Final = (
    ("org.systemd.property.NAME",
     "with systemd as manager of the cgroups, a property of the unit, as GVariant text"),
    ("org.criu.config",
     "file with settings of CRIU for checkpoint and restore [/etc/criu/anocir.conf, which need not "
     "be there]"),
    ("run.oci.systemd.subgroup", "cgroup below the unit of systemd that has the limits"),
    ("run.oci.delegate-cgroup",
     "cgroup below that of the limits which is the container's own to change (version 2)"),
    ("run.oci.keep_original_groups",
     "1 or true: the process keeps the supplementary groups of the caller"),
    ("run.oci.mount_context_type",
     "how linux.mountLabel is given to a mount: context, fscontext, defcontext or rootcontext"),
    ("run.oci.hooks.stdout", "file of the host to which the output of hooks is appended"),
    ("run.oci.hooks.stderr", "the same for their errors"),
)  # fmt: skip


def man(date: str) -> str:
    """Return the man page, section 8, of a day such as 2026-11-27."""
    lines = [
        f'.TH ANOCIR 8 "{date}" "anocir {__version__}" "System Administration"',
        ".SH NAME",
        "anocir \\- run containers as the OCI Runtime Specification says",
        ".SH SYNOPSIS",
        "\\fBanocir\\fR [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        _roff(
            "An OCI container runtime in one file, which Docker, containerd, Podman and CRI-O take "
            "in the place of runc. A bundle is a directory with config.json and a root file system."
        ),
        ".SH GLOBAL OPTIONS",
        *_roff_rows((*cli.GLOBALS, cli.HELP_ROW, cli.VERSION_ROW)),
        ".SH COMMANDS",
    ]
    for _, names in grouped():
        for name in names:
            command = cli.load(name)
            lines += [f".SS {name} {_roff(command.USAGE)}", _roff(command.HELP) + "."]
            lines += _roff_rows(command.OPTIONS)
            lines += [".PP", "Example:", ".PP", ".nf", _roff("  " + EXAMPLES[name]), ".fi"]
    lines += [".SH EXIT STATUS"]
    for code, text in _STATUS:
        lines += [".TP", _roff(code), _roff(text)]
    for title, table in (
        ("MOUNT OPTIONS", _MOUNT_OPTIONS),
        ("ANNOTATIONS", _ANNOTATIONS),
        ("FILES", _FILES),
    ):
        lines += [f".SH {title}"]
        for name, text in table:
            lines += [".TP", _roff(name), _roff(text)]
    lines += [
        ".SH SEE ALSO",
        "\\fBrunc\\fR(8), \\fBcrun\\fR(1), \\fBnamespaces\\fR(7), \\fBcgroups\\fR(7)",
        "",
    ]
    return "\n".join(lines)
