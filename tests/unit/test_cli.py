"""The parser of the command line, as Docker, containerd, Podman, CRI-O and Buildah call it."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import posix

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir import cli, errors, manual

pytestmark = pytest.mark.unit


def parse(*words: str) -> tuple[cli.Settings, str, dict[str, object], list[str]]:
    settings = cli.defaults()
    name, _, options, args = cli.parse(list(words), settings)
    return settings, name, options, args


def refusal(*words: str) -> errors.Error:
    with pytest.raises(errors.Error) as caught:
        parse(*words)
    assert "\n" not in caught.value.text
    return caught.value


# What the callers send, word for word (the forms are those of their own sources).
SHIM = ("--root", "/run/containerd/runc/k8s.io", "--log", "/b/log.json", "--log-format", "json")


@pytest.mark.parametrize(
    ("words", "name", "args", "expected"),
    [
        (
            (*SHIM, "--systemd-cgroup", "create", "--bundle", "/b", "--pid-file", "/b/init.pid",
             "--console-socket", "/tmp/pty1/pty.sock", "abc"),
            "create", ["abc"],
            {"bundle": "/b", "pid_file": "/b/init.pid", "console_socket": "/tmp/pty1/pty.sock"},
        ),
        ((*SHIM, "start", "abc"), "start", ["abc"], {}),
        (
            (*SHIM, "exec", "--process", "/tmp/p", "--console-socket", "/s", "--detach",
             "--pid-file", "/b/x.pid", "abc"),
            "exec", ["abc"],
            {"process": "/tmp/p", "detach": True, "pid_file": "/b/x.pid", "console_socket": "/s"},
        ),
        ((*SHIM, "kill", "--all", "abc", "9"), "kill", ["abc", "9"], {"all": True}),
        ((*SHIM, "delete", "--force", "abc"), "delete", ["abc"], {"force": True}),
        ((*SHIM, "ps", "--format", "json", "abc"), "ps", ["abc"], {"format": "json"}),
        ((*SHIM, "update", "--resources", "-", "abc"), "update", ["abc"], {"resources": "-"}),
        ((*SHIM, "update", "--resources=-", "abc"), "update", ["abc"], {"resources": "-"}),
        ((*SHIM, "list", "--format=json"), "list", [], {"format": "json"}),
        ((*SHIM, "events", "--stats", "abc"), "events", ["abc"], {"stats": True}),
        ((*SHIM, "events", "--interval=5s", "abc"), "events", ["abc"], {"interval": 5.0}),
        (("--log", "/l", "--log-format", "json", "run", "--bundle", "/b", "--keep", "abc"),
         "run", ["abc"], {"keep": True, "bundle": "/b"}),
        (("--systemd-cgroup", "--log-format=json", "--log=/l", "create", "--bundle", "/b",
          "--pid-file", "/p", "--no-pivot", "--no-new-keyring", "--preserve-fds", "2", "abc"),
         "create", ["abc"], {"no_pivot": True, "no_new_keyring": True, "preserve_fds": 2}),
        (("exec", "--pid-file", "/p", "--process", "/f", "--detach", "--tty", "abc"),
         "exec", ["abc"], {"tty": True}),
        (("--root=/run/anocir", "kill", "-a", "abc", "9"), "kill", ["abc", "9"], {"all": True}),
        (("features",), "features", [], {}),
        (("run", "-no-subreaper", "-d", "abc"), "run", ["abc"],
         {"no_subreaper": True, "detach": True}),
    ],
)  # fmt: skip
def test_the_forms_that_callers_send(
    words: tuple[str, ...], name: str, args: list[str], expected: dict[str, object]
) -> None:
    _, found, options, rest = parse(*words)
    assert (found, rest) == (name, args)
    assert {key: options[key] for key in expected} == expected


def test_a_global_option_given_twice_counts_the_last_time() -> None:
    settings, *_ = parse("--log", "/a", "--debug", "--log=/b", "--root", "/x", "--root", "/y",
                         "state", "c")  # fmt: skip
    assert (settings.log, settings.root, settings.debug) == ("/b", "/y", True)


def test_global_options_are_taken_after_the_command() -> None:
    settings, _, options, args = parse("state", "--root", "/y", "c", "--log", "/l", "--debug")
    assert (settings.root, settings.log, settings.debug, args) == ("/y", "/l", True, ["c"])
    assert options == {}


@pytest.mark.parametrize("word", ["--force", "-force", "-f", "--f", "--force=true", "-f=1"])
def test_a_flag_has_many_spellings(word: str) -> None:
    assert parse("delete", word, "c")[2]["force"] is True


@pytest.mark.parametrize("value", ["0", "f", "F", "false", "FALSE", "False"])
def test_a_flag_can_be_switched_off(value: str) -> None:
    assert parse("delete", "--force", f"--force={value}", "c")[2]["force"] is False


def test_a_flag_never_takes_the_next_word() -> None:
    assert parse("delete", "--force", "false")[3] == ["false"]


def test_options_of_most_commands_may_follow_the_id() -> None:
    _, _, options, args = parse("update", "c", "--memory", "10M", "--pids-limit=-1")
    assert (options["memory"], options["pids_limit"], args) == (10 << 20, -1, ["c"])


@pytest.mark.parametrize("command", ["exec", "kill", "ps"])
def test_after_the_id_everything_belongs_to_the_command(command: str) -> None:
    rest = ["c", "--help"] if command == "kill" else ["c", "ls", "--all", "-e", "--", "--debug"]
    settings, _, _, args = parse(command, *rest)
    assert args == rest
    assert not settings.debug


def test_a_double_dash_ends_the_options() -> None:
    assert parse("exec", "--tty", "--", "c", "-x")[3] == ["c", "-x"]


def test_a_value_may_begin_with_a_dash() -> None:
    assert parse("update", "--memory-swap", "-1", "c")[2]["memory_swap"] == -1
    assert parse("update", "-r", "-", "c")[2]["resources"] == "-"


def test_a_list_is_made_by_repeating_the_option_and_commas_do_not_split() -> None:
    _, _, options, _ = parse("exec", "-e", "A=1,2", "--env=B=", "-c", "CAP_KILL", "--cap", "X",
                             "-g", "1", "--additional-gids", "2", "--cgroup", "a:/b", "c", "sh")  # fmt: skip
    assert options["env"] == ["A=1,2", "B="]
    assert options["cap"] == ["CAP_KILL", "X"]
    assert options["additional_gids"] == ["1", "2"]
    assert options["cgroup"] == ["a:/b"]


def test_lists_of_two_calls_are_not_shared() -> None:
    parse("exec", "-e", "A=1", "c", "sh")
    assert parse("exec", "c", "sh")[2]["env"] == []


def test_a_missing_value_is_named_in_the_words_of_go() -> None:
    # Podman greps for this text.
    assert "flag needs an argument: --bundle" in refusal("create", "--bundle").text
    assert "flag needs an argument: --log" in refusal("--log").text


def test_options_are_never_abbreviated() -> None:
    assert refusal("create", "--bund", "/b", "c").text.endswith("not defined: --bund")
    assert "not defined: --bogus" in refusal("--bogus", "state", "c").text
    assert "not defined: --version" in refusal("state", "--version", "c").text


def test_an_unknown_command_has_an_exit_status_of_its_own() -> None:
    error = refusal("frobnicate")
    assert (error.text, error.status) == ('unknown command "frobnicate"', 3)


@pytest.mark.parametrize(
    "words", [("checkpoint", "--help"), ("restore", "-h"), ("help", "restore")]
)
def test_the_help_for_checkpoint_fails_without_criu(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Podman and CRI-O take its exit status for an answer."""
    monkeypatch.setitem(posix.environ, b"PATH", b"/nowhere")
    settings = cli.defaults()
    _, run, options, args = cli.parse(list(words), settings)
    with pytest.raises(errors.Error, match="criu is not installed"):
        run(settings, options, args)


def test_init_by_hand_is_refused() -> None:
    settings = cli.defaults()
    _, run, options, args = cli.parse(["init"], settings)
    with pytest.raises(errors.Error, match="internal"):
        run(settings, options, args)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("state",), '"state" requires exactly 1 argument(s)'),
        (("state", "a", "b"), '"state" requires exactly 1 argument(s)'),
        (("kill",), '"kill" requires a minimum of 1 argument(s)'),
        (("kill", "a", "9", "x"), '"kill" requires a maximum of 2 argument(s)'),
        (("list", "x"), '"list" requires exactly 0 argument(s)'),
        (("state", ""), "container id cannot be empty"),
        (("state", "."), 'invalid container ID format: "."'),
        (("delete", "--force", ".."), 'invalid container ID format: ".."'),
        (("create", "a/b"), 'invalid container ID format: "a/b"'),
        (("create", "ä"), 'invalid container ID format: "ä"'),
        (("--log-format", "xml", "state", "c"),
         'invalid log-format "xml", must be text or json'),
        (("--cgroup-manager", "none", "state", "c"),
         '--cgroup-manager: must be cgroupfs, systemd or disabled, got "none"'),
        (("delete", "--force=maybe", "c"), 'delete: --force: must be true or false, got "maybe"'),
        (("create", "--preserve-fds", "x", "c"),
         'create: --preserve-fds: must be an integer, got "x"'),
        (("update", "--memory", "lots", "c"),
         'update: --memory: must be a size such as 64m or -1, got "lots"'),
        (("events", "--interval", "soon", "c"),
         'events: --interval: must be a duration such as 5s, got "soon"'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(words: tuple[str, ...], text: str) -> None:
    assert refusal(*words).text == text


def test_the_log_is_known_although_a_later_word_is_wrong() -> None:
    settings = cli.defaults()
    with pytest.raises(errors.Error):
        cli.parse(["--log", "/l", "--log-format", "json", "create", "--bogus"], settings)
    assert (settings.log, settings.log_format, settings.command) == ("/l", "json", "create")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1024", 1024), ("64k", 64 << 10), ("64KB", 64 << 10), ("1.5GiB", 3 << 29), ("10M", 10 << 20),
     ("-1", -1), ("2t", 2 << 40), ("7b", 7), ("0", 0), ("+64m", 64 << 20)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    assert parse("update", "--memory", text, "c")[2]["memory"] == value


@pytest.mark.parametrize(
    "text", ["", "-", "k", "1kk", "1ki b", "0x10", "1e3", "٣", "1" * 30, "--5", "+-5", "+", "."]
)
def test_sizes_that_are_none(text: str) -> None:
    assert "must be a size" in refusal("update", "--memory", text, "c").text


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("+10", 10), ("-1", -1), ("0x10", 16), ("0X1f", 31), ("010", 8), ("-010", -8), ("0o17", 15), ("0b11", 3),
     ("1_000", 1000), ("0_7", 7), ("0x_f", 15), ("00", 0), ("0", 0), (str(2**63 - 1), 2**63 - 1), ("0b" + "1" * 63, 2**63 - 1)],
)  # fmt: skip
def test_counts_are_read_as_go_reads_them(text: str, value: int) -> None:
    assert parse("update", "--pids-limit", text, "c")[2]["pids_limit"] == value


@pytest.mark.parametrize(
    "text", ["", "-", "+-1", "1 ", " 1", "08", "0x", "1__0", "_1", "1_", "1e3", "1.0", "\u0663", "x", str(2**63), "1" * 5000]
)  # fmt: skip
def test_counts_that_are_none(text: str) -> None:
    assert "must be an integer" in refusal("update", "--pids-limit", text, "c").text


@pytest.mark.parametrize(
    ("text", "value"), [("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("2", 2), ("1.5h", 5400)]
)
def test_durations(text: str, value: float) -> None:
    assert parse("events", "--interval", text, "c")[2]["interval"] == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "s", "5x", "5s3", "1..2s", "-1s"])
def test_durations_that_are_none(text: str) -> None:
    assert "must be a duration" in refusal("events", "--interval", text, "c").text


@pytest.mark.parametrize(("text", "value"), [("true", "true"), ("1", "true"), ("auto", "auto")])
def test_rootless_takes_booleans_of_go(text: str, value: str) -> None:
    assert parse("--rootless", text, "state", "c")[0].rootless == value
    assert parse(f"--rootless={text}", "state", "c")[0].rootless == value


def test_criu_is_accepted_and_ignored() -> None:
    assert parse("--criu", "/usr/sbin/criu", "state", "c")[1] == "state"


def test_root_is_absolute_and_never_the_root_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    settings = cli.defaults()
    settings.root = "state/dir"
    cli.settle(settings)
    assert settings.root == "/usr/state/dir"
    for root in ("/", "//", "/.", "/x/..", ".."):
        settings.root = root
        with pytest.raises(errors.Error, match="--root"):
            cli.settle(settings)


def settled_root(monkeypatch: pytest.MonkeyPatch, uid: int, environ: dict[bytes, bytes]) -> str:
    monkeypatch.setattr(cli.posix, "geteuid", lambda: uid)
    monkeypatch.setattr(cli.posix, "environ", environ)
    settings = cli.defaults()
    cli.settle(settings)
    return settings.root


def test_the_default_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_dir = {b"XDG_RUNTIME_DIR": b"/run/user/7/"}
    monkeypatch.setattr(cli, "_is_mapped_root", lambda: False)
    assert settled_root(monkeypatch, 0, runtime_dir) == "/run/anocir"
    assert settled_root(monkeypatch, 7, runtime_dir) == "/run/user/7/anocir"
    there = {"/run/user/7": 7, "/run/user/8": 7}

    def stat(path: str) -> object:
        if path not in there:
            raise FileNotFoundError(2, "stat", path)
        return type("Found", (), {"st_uid": there[path]})

    monkeypatch.setattr(cli.posix, "stat", stat)
    assert settled_root(monkeypatch, 7, {b"XDG_RUNTIME_DIR": b""}) == "/run/user/7/anocir"
    assert settled_root(monkeypatch, 8, {}) == "/run/anocir"  # somebody else's
    assert settled_root(monkeypatch, 9, {}) == "/run/anocir"
    assert settled_root(monkeypatch, 0, {}) == "/run/anocir"
    monkeypatch.setattr(cli, "_is_mapped_root", lambda: True)
    assert settled_root(monkeypatch, 0, runtime_dir) == "/run/user/7/anocir"


def test_help_names_each_command_and_each_visible_option(capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"], ["help"], []):
        settings = cli.defaults()
        _, run, options, args = cli.parse(words, settings)
        assert run(settings, options, args) == 0
        text = capfd.readouterr().out
        lacking = [name for name in cli.COMMANDS if f"\n  {name}" not in text]
        assert lacking == [], "not in the help: give it a place in manual.GROUPS"
        assert "--criu" not in text
        assert "--start-exec-errors" in text
        assert max(map(len, text.splitlines())) <= 100
    for name in cli.COMMANDS:
        assert name in manual.EXAMPLES, f"give {name} an example in manual.EXAMPLES"
        text = manual._command_help(name)
        for row in cli.load(name).OPTIONS:
            told = f"--{row[0]}" in text
            assert told == bool(row[5]), f"{name} --{row[0]}: in the help if it has a text for it"
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_tables_are_well_formed(name: str) -> None:
    rows = cli.load(name).OPTIONS
    words = [row[0] for row in rows] + [row[1] for row in rows if row[1]]
    assert len(words) == len(set(words)), f"an option of {name} is there twice: {words}"
    for long, short, kind, default, metavar, _ in rows:
        where = f"commands/{name}.py, OPTIONS, {long}"
        assert len(long) > 1, f"{where}: the long name comes first"
        assert len(short) <= 1, f"{where}: {short} is no letter"
        assert (kind == "flag") == (metavar == ""), f"{where}: a word for its value, but for a flag"
        assert kind != "flag" or default is False, f"{where}: a flag is False if it is not given"
        known = kind != "choice" or default in ("", *metavar.split("|"))
        assert known, f"{where}: {default} is none of {metavar}"


# Whatever the words are: an answer or an errors.Error in one line, nothing else.
WORDS = st.one_of(
    st.sampled_from([
        *cli.COMMANDS, "init", "checkpoint", "--", "-", "--debug", "--log", "--log-format=json",
        "--root", "-e", "--cap", "-f", "--force=x", "--memory", "-1", "10M", "--help", "-v", "=", "--=",
    ]),
    st.text(max_size=8).filter(lambda word: "\0" not in word),
)  # fmt: skip


@given(st.lists(WORDS, max_size=8))
def test_no_command_line_breaks_the_parser(words: list[str]) -> None:
    settings = cli.defaults()
    try:
        name, run, options, args = cli.parse(words, settings)
    except errors.Error as error:
        assert error.status in (1, 3)
        assert error.text
    else:
        assert callable(run)
        assert isinstance(options, dict)
        assert all(isinstance(word, str) for word in args)
        assert name


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=10)


@given(bundle=TEXT, pid_file=TEXT, debug=st.booleans(), after=st.booleans(), data=st.data())
def test_order_and_spelling_do_not_matter(
    bundle: str, pid_file: str, debug: bool, after: bool, data: st.DataObject
) -> None:
    groups = [
        data.draw(st.sampled_from([["--bundle", bundle], [f"-b={bundle}"], ["-bundle", bundle]])),
        data.draw(st.sampled_from([["--pid-file", pid_file], [f"--pid-file={pid_file}"]])),
        [f"--debug={str(debug).lower()}"],
    ]
    groups = data.draw(st.permutations(groups))
    words = [word for group in groups for word in group]
    settings, _, options, args = parse("create", *((["id"] + words) if after else (words + ["id"])))
    assert (options["bundle"], options["pid_file"], settings.debug) == (bundle, pid_file, debug)
    assert args == ["id"]


@given(st.lists(TEXT, max_size=6))
def test_the_command_of_exec_arrives_unchanged(words: list[str]) -> None:
    assert parse("exec", "--process=/p", "id", *words)[3] == ["id", *words]


IDS = st.text(string.ascii_letters + string.digits + "_+-.", min_size=1)


@given(IDS.filter(lambda name: name not in (".", "..")))
def test_ids_that_are_valid(container_id: str) -> None:
    cli.check_id(container_id)


@given(st.text(min_size=1))
def test_an_accepted_id_is_one_name_in_a_directory(container_id: str) -> None:
    try:
        cli.check_id(container_id)
    except errors.Error:
        return
    assert set(container_id) <= set(string.ascii_letters + string.digits + "_+-.")
    assert container_id not in (".", "..")


@given(st.integers(-(1 << 62), 1 << 62))
def test_integers_and_sizes_round_trip(number: int) -> None:
    _, _, options, _ = parse("update", "--cpu-quota", str(number), f"--memory={number}", "c")
    assert (options["cpu_quota"], options["memory"]) == (number, number)


# What cli.parse makes of a row's kind; an option without a default has None as well.
TYPES = {"flag": "bool", "text": "str", "choice": "str", "int": "int", "number": "int", "size": "int",
         "duration": "float", "list": "list[str]"}  # fmt: skip


def test_the_type_of_the_options_has_those_of_all_commands() -> None:
    """Options in cli.py is for the type checker, which cannot see the tables."""
    tree = ast.parse(Path(cli.__file__).read_text())
    (listed,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Options"
    ]
    typed = {
        ast.unparse(each.target): ast.unparse(each.annotation)
        for each in listed.body
        if isinstance(each, ast.AnnAssign)
    }
    rows = [row for name in (*cli.COMMANDS, *cli.HIDDEN) for row in cli.load(name).OPTIONS]
    plain = {row[0].replace("-", "_"): TYPES[row[2]] for row in rows}
    unset = {row[0].replace("-", "_") for row in rows if row[3] is None}
    wanted = {name: kind + " | None" * (name in unset) for name, kind in plain.items()}
    assert typed == wanted, "write the option into Options in anocir/cli.py"
