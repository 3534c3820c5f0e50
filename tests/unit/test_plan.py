"""The plan: whole plans of usual configurations as text, and what must come before what.

After a change that is meant: `python -m tests.unit.test_plan --update`, and look at the difference.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.model import entering, execution, explain, namespaces, plan
from anocir.model.spec import whole
from anocir.errors import Error
from anocir.linux import const

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).resolve().parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))

FACTS = {
    "id": "box",
    "bundle": "/bundle",
    "rootfs": "/bundle/rootfs",
    "state": {"ociVersion": "1.3.0", "id": "box", "bundle": "/bundle"},
    "cgroup": {"version": 2, "own_path": "/box", "host_mountpoint": "/sys/fs/cgroup"},
    "cgroup_fallback": None,
    "seccomp": {"bpf": bytes(8 * 100), "flags": 0, "notify": False},
    "apparmor": False,
    "selinux": False,
    "no_pivot": False,
    "no_new_keyring": False,
    "keyring": "anocir.secret",
    "clone": True,
    "signals": True,
    "preserve_fds": 0,
    "listen_fds": 0,
    "user_namespace": False,
    "check_command": True,
}


def load(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def facts_for(config: dict, **more) -> dict:
    facts = {**FACTS, **more}
    if not (config.get("linux") or {}).get("seccomp"):
        facts["seccomp"] = None
    return facts


def compiled(config: dict, **more) -> dict:
    return plan.compile_create(config, facts_for(config, **more))


def text(name: str) -> str:
    config = load(name)
    made = compiled(config)
    lines = explain.describe(made)
    return "\n".join([*lines, f"process {json.dumps(made['process'])}"]) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_is_the_one_that_was_reviewed(name: str) -> None:
    assert text(name) == (GOLDEN / f"{name}.txt").read_text(), "see the top of this file"


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_valid(name: str) -> None:
    whole.check(load(name))


@pytest.mark.parametrize("name", NAMES)
def test_compiling_changes_nothing_and_gives_the_same_again(name: str) -> None:
    config = load(name)
    before = copy.deepcopy(config)
    assert compiled(config) == compiled(config)
    assert config == before


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_plain_data_that_init_can_execute(name: str) -> None:
    import marshal

    from anocir.inside import init

    made = compiled(load(name))
    assert marshal.loads(marshal.dumps(made)) == made
    for phase in ("prepare", "setup", "launch", "born", "start"):
        for step, path, *_ in made[phase]:
            assert step in init.STEPS
            assert isinstance(path, str)


# What must come before what ---------------------------------------------------------------------


def steps(made: dict) -> list[str]:
    return [
        step[0] for phase in ("prepare", "setup", "launch", "born", "start") for step in made[phase]
    ]


def before(made: dict, first: str, second: str) -> None:
    """Assert that every step `first` comes before every step `second`, and that both are there."""
    found = steps(made)
    assert first in found and second in found, f"{first} or {second} is not in the plan"
    last = len(found) - 1 - found[::-1].index(first)
    assert last < found.index(second), f"{first} must come before {second}"


ORDER = [
    # The configuration of all features; why is in the plan's comments.
    ("propagation", "source"),
    ("source", "root"),
    ("root", "bind"),
    ("root", "filesystem"),
    ("source", "filesystem"),
    ("new_user_namespace", "unshare"),
    ("time_offsets", "become_root"),
    ("source", "become_root"),
    ("root", "become_root"),
    ("become_root", "filesystem"),
    ("become_root", "session"),
    ("filesystem", "device"),
    ("device", "device_links"),
    ("device_links", "late_readonly"),
    ("device", "late_readonly"),
    ("make_cwd", "late_readonly"),
    ("make_cwd", "root_readonly"),
    ("filesystem", "host_hooks"),
    ("device_links", "host_hooks"),
    ("host_hooks", "hooks"),
    ("hooks", "pivot_root"),
    ("own_proc", "sysctl"),
    ("sysctl", "readonly_path"),
    ("readonly_path", "pivot_root"),
    ("masked_path", "pivot_root"),
    ("late_readonly", "pivot_root"),
    ("root_readonly", "pivot_root"),
    ("pivot_root", "final_propagation"),
    ("pivot_root", "command"),
    ("home", "command"),
    ("join_late", "rlimits"),
    ("rlimits", "user"),
    ("capabilities", "close_descriptors"),
    ("umask", "close_descriptors"),
    ("drop_bounding", "user"),
    ("user", "capabilities"),
    ("scheduler", "user"),
    ("io_priority", "user"),
    ("own_stdio", "user"),
]


def everything() -> dict:
    """A configuration in which every step of `create` appears, but for those that exclude it."""
    config = load("userns")
    other = load("no-mount-namespace")
    config["hooks"] = {
        name: other["hooks"][name] for name in ("prestart", "createRuntime", "createContainer")
    }
    config["process"]["scheduler"] = other["process"]["scheduler"]
    config["process"]["ioPriority"] = other["process"]["ioPriority"]
    config["process"]["env"].remove("HOME=/home/user")
    return config


@pytest.mark.parametrize(("first", "second"), ORDER)
def test_a_step_comes_before_another(first: str, second: str) -> None:
    before(compiled(everything()), first, second)


def test_without_a_user_namespace_sources_are_opened_before_any_mount() -> None:
    made = compiled(load("docker"))
    before(made, "source", "filesystem")
    before(made, "source", "bind")
    before(made, "root", "filesystem")
    assert "become_root" not in steps(made)


@pytest.mark.parametrize("last", [False, True])
def test_the_filter_comes_before_the_capabilities_go_or_last_of_all(last: bool) -> None:
    config = load("docker")
    config["process"]["noNewPrivileges"] = last
    made = compiled(config)
    if last:
        assert steps(made)[-1] == "seccomp"
        before(made, "no_new_privs", "seccomp")
        before(made, "capabilities", "seccomp")
    else:
        assert steps(made)[-2:] == ["seccomp", "shed"]
        kept = [step[-1] for step in made["launch"] if step[0] == "capabilities"]
        assert kept == [1 << const.CAP_SYS_ADMIN], "which loading it takes"
        for name in ("drop_bounding", "user", "capabilities", "umask", "close_descriptors"):
            before(made, name, "seccomp")
        assert "no_new_privs" not in steps(made)
    assert steps(made).count("seccomp") == 1


def test_labels_are_written_before_rights_go_and_opened_before_the_root_changes() -> None:
    config = load("docker")
    config["process"]["selinuxLabel"] = "a:b:c:d"
    made = compiled(config, apparmor=True, selinux=True)
    before(made, "open_attributes", "pivot_root")
    before(made, "label", "user")
    before(made, "label", "seccomp")
    labels = [step[1:] for step in made["launch"] if step[0] == "label"]
    assert labels == [
        ("process.apparmorProfile", "apparmor/exec", "exec docker-default"),
        ("process.selinuxLabel", "exec", "a:b:c:d"),
    ]


def test_labels_are_left_out_where_the_module_is_off() -> None:
    config = load("docker")
    config["linux"]["mountLabel"] = "a:b:c:d"
    made = compiled(config)
    assert "label" not in steps(made) and "open_attributes" not in steps(made)
    assert not any("context=" in str(step) for step in made["setup"])
    labelled = compiled(config, selinux=True)
    contexts = {step[2] for step in labelled["setup"]
                if step[0] == "filesystem" and 'context="a:b:c:d"' in step[5]["data"]}  # fmt: skip
    assert contexts == {"tmpfs", "devpts"}


def test_the_root_is_entered_in_one_of_three_ways() -> None:
    ways = ("pivot_root", "move_root", "chroot")
    for config, more, expected in [
        (load("docker"), {}, "pivot_root"),
        (load("docker"), {"no_pivot": True}, "move_root"),
        (load("no-mount-namespace"), {}, "chroot"),
        (load("no-mount-namespace"), {"no_pivot": True}, "chroot"),
    ]:
        assert [step for step in steps(compiled(config, **more)) if step in ways] == [expected]


def test_the_cgroup_namespace_is_made_before_what_is_the_containers() -> None:
    made = compiled(load("spec"))
    names = steps(made)
    where = [index for index, step in enumerate(made["setup"])
             if step[0] == "unshare" and step[2] == const.CLONE_NEWCGROUP]  # fmt: skip
    assert len(where) == 1
    assert made["setup"][where[0] - 1][0] == "join_late"
    # What the file systems take is charged to the container, what the interpreter took is not.
    assert made["setup"][where[0] + 1][0] == "filesystem"
    assert names.index("join_late") < min(names.index("cgroup_mount"), names.index("filesystem"))
    assert not any(
        step[0] == "unshare" and step[2] & const.CLONE_NEWCGROUP for step in made["prepare"]
    )
    assert names.count("join_late") == 1


def test_joined_namespaces_come_before_new_ones_and_count_in_their_own_order() -> None:
    config = load("spec")
    config["linux"]["namespaces"] = [
        {"type": "mount"}, {"type": "ipc", "path": "/i"}, {"type": "pid"}, {"type": "network", "path": "/n"},
    ]  # fmt: skip
    made = compiled(config)
    assert made["prepare"][0] == (
        "join_all", "linux.namespaces",
        [(const.CLONE_NEWIPC, 0, "/i"), (const.CLONE_NEWNET, 1, "/n")],
    )  # fmt: skip
    assert made["prepare"][1][0] == "unshare"
    assert made["prepare"][1][2] == const.CLONE_NEWNS | const.CLONE_NEWPID


@pytest.mark.parametrize(("network", "expected"), [([{"type": "network"}], True), ([], False),
                                                   ([{"type": "network", "path": "/n"}], False)])  # fmt: skip
def test_the_loopback_interface_is_brought_up_only_in_a_new_namespace(network, expected) -> None:
    config = load("no-process")
    config["linux"]["namespaces"] += network
    made = compiled(config)
    (unshare,) = [step for step in made["prepare"] if step[0] == "unshare"]
    # The host side makes it, so init does not.
    assert namespaces.host_makes_network(config, nested=False) == expected
    assert not unshare[2] & const.CLONE_NEWNET
    assert "loopback" not in steps(made)


def test_a_network_namespace_inside_a_user_namespace_is_made_by_init() -> None:
    config = load("userns")
    spaces = config["linux"]["namespaces"]
    spaces[:] = [entry for entry in spaces if entry["type"] != "network"] + [{"type": "network"}]
    made = compiled(config)
    assert not namespaces.host_makes_network(config, nested=False)
    assert any(step[0] == "unshare" and step[2] & const.CLONE_NEWNET for step in made["prepare"])
    assert "loopback" in steps(made)


def test_a_nested_runtime_has_init_make_the_network_namespace() -> None:
    config = load("no-process")
    config["linux"]["namespaces"] += [{"type": "network"}]
    assert not namespaces.host_makes_network(config, nested=True)
    assert "loopback" in steps(compiled(config, user_namespace=True))


def test_time_offsets_are_written_before_the_first_process_is_inside() -> None:
    made = compiled(load("userns"))
    offsets = [step for step in made["prepare"] if step[0] == "time_offsets"]
    assert sorted(offsets[0][2].splitlines()) == ["boottime -5 7", "monotonic 172800 0"]
    first = next(step for step in made["prepare"] if step[0] == "unshare")
    assert first[2] & const.CLONE_NEWTIME
    assert made["prepare"].index(first) < made["prepare"].index(offsets[0])


# Single answers ---------------------------------------------------------------------------------


def mounted(*mounts: dict, **more) -> dict:
    config = load("no-process")
    config["mounts"] = list(mounts)
    return compiled(config, **more)


@pytest.mark.parametrize(
    ("mount", "error"),
    [
        ({"destination": "/", "type": "tmpfs"}, "mounts[0].destination: the root itself"),
        ({"destination": "/a/..", "type": "tmpfs"}, "mounts[0].destination: the root itself"),
        ({"destination": "/proc", "type": "tmpfs"}, "mounts[0].type: only proc"),
        ({"destination": "//proc/.", "type": "sysfs"}, "mounts[0].type: only proc"),
        ({"destination": "/proc/x", "type": "tmpfs"}, 'mounts[0].destination: "/proc/x" must not'),
        ({"destination": "/a/../proc/sys", "source": "/x", "options": ["bind"]},
         'mounts[0].destination: "/proc/sys" must not'),
        ({"destination": "/data", "options": ["bind"]}, "mounts[0].source: a bind mount needs a source"),
        ({"destination": "/data"}, "mounts[0].type: a mount needs a type"),
        ({"destination": "/data", "source": "/x", "options": ["bind", "", "readonly"]},
         'mounts[0].options[2]: "readonly" is no option of a bind mount'),
        ({"destination": "/data", "source": "/x", "options": ["bind", "src-nofollow", "copy-symlink"]},
         "mounts[0].options: copy-symlink and src-nofollow exclude each other"),
    ],
)  # fmt: skip
def test_a_mount_that_cannot_be_is_refused_with_its_path(mount: dict, error: str) -> None:
    with pytest.raises(Error) as caught:
        mounted(mount)
    assert caught.value.text.startswith(error)


def test_values_for_a_file_system_that_is_there_are_passed_over_with_a_warning() -> None:
    """The file `mounts` of the validation suite gives mode=755 and size=1k to bind mounts."""
    mount = {"destination": "/data", "source": "/x", "options": ["bind", "size=1k", "mode=755"]}
    made = mounted(mount)
    (step,) = [step for step in made["setup"] if step[0] == "bind"]
    assert step[5]["data"] == []
    told = [line for line in whole.warnings({"mounts": [mount]}) if "passed over" in line]
    assert [line.split(":")[0] for line in told] == ["mounts[0].options[1]", "mounts[0].options[2]"]


@pytest.mark.parametrize("path", plan.PROC_FILES)
def test_what_lxcfs_provides_may_lie_on_proc(path: str) -> None:
    made = mounted({"destination": path, "source": "/lxcfs/x", "options": ["bind"]})
    assert [step[4] for step in made["setup"] if step[0] == "bind"] == [path]


def test_a_relative_source_is_one_of_the_bundle() -> None:
    made = mounted({"destination": "data", "source": "x/y", "options": ["bind"]})
    sources = [step for step in made["setup"] if step[0] == "source"]
    assert sources[0][1:4] == ("mounts[0].source", 0, "/bundle/x/y")
    assert [step[4] for step in made["setup"] if step[0] == "bind"] == ["/data"]


def test_bind_by_type_needs_no_option() -> None:
    made = mounted({"destination": "/d", "source": "/x", "type": "bind"})
    assert [step[0] for step in made["setup"] if step[0] in ("source", "bind")] == [
        "source",
        "bind",
    ]


def test_a_bound_dev_is_left_alone() -> None:
    for options, kind in ((["rbind"], "none"), (["bind"], None), ([], "bind")):
        mount = {"destination": "/dev/", "source": "/dev", "options": options}
        made = mounted({**mount, **({"type": kind} if kind else {})})
        assert not {"device", "device_links"} & set(steps(made))
    assert "device" in steps(mounted({"destination": "/dev", "type": "tmpfs"}))


def test_devices_of_the_configuration_replace_the_default_ones() -> None:
    made = compiled(load("userns"))
    devices = {step[2]: step for step in made["setup"] if step[0] == "device"}
    assert set(devices) == {path for path, *_ in plan.DEFAULT_DEVICES} | {"/dev/fuse"}
    assert devices["/dev/null"][6] == 0o600
    assert devices["/dev/fuse"][3:10] == ("c", 10, 229, 0o666, 0, 0, True)
    assert not any(step[9] for step in compiled(load("docker"))["setup"] if step[0] == "device")
    nested = compiled(load("docker"), user_namespace=True)
    assert all(step[9] for step in nested["setup"] if step[0] == "device")


def test_a_fifo_has_no_numbers() -> None:
    config = load("no-process")
    config["linux"]["devices"] = [{"path": "/dev/p", "type": "p", "major": 8, "minor": 666}]
    made = [step for step in compiled(config)["setup"] if step[2:3] == ("/dev/p",)]
    assert made[0][3:7] == ("p", 0, 0, 0o666)


def test_the_last_of_a_variable_counts_and_stands_where_it_stood() -> None:
    config = load("no-mount-namespace")
    config["process"]["env"] = ["A=1", "B=2", "A=3", "EMPTY=", "NOEQUALS"]
    assert compiled(config)["process"]["env"] == ["B=2", "A=3", "EMPTY=", "NOEQUALS"]


def test_passed_descriptors_and_the_notify_socket_are_in_the_environment() -> None:
    made = compiled(
        load("spec"),
        listen_fds=2,
        preserve_fds=3,
        notify="/run/notify/notify.sock",
        notify_source="/box/notify",
    )
    env = made["process"]["env"]
    assert {"LISTEN_FDS=2", "LISTEN_PID=1", "NOTIFY_SOCKET=/run/notify/notify.sock"} <= set(env)
    assert made["fds"] == 5
    assert not any(
        entry.startswith(("LISTEN", "NOTIFY")) for entry in compiled(load("spec"))["process"]["env"]
    )


def test_home_is_asked_for_only_when_it_is_not_given() -> None:
    config = load("spec")
    assert "home" in steps(compiled(config))
    config["process"]["env"].append("HOME=/x")
    assert "home" not in steps(compiled(config))


def test_an_empty_home_is_filled_in_and_the_last_one_counts() -> None:
    config = load("spec")
    config["process"]["env"] += ["HOME=/x", "HOME="]
    made = compiled(config)
    assert "home" in steps(made)
    assert not [entry for entry in made["process"]["env"] if entry.startswith("HOME=")]
    config["process"]["env"].append("HOME=/y")
    assert "home" not in steps(compiled(config))


def test_the_keyring_is_of_the_name_that_the_state_keeps_or_none() -> None:
    made = compiled(load("spec"))
    assert ("keyring", "", "anocir.secret", "") in made["setup"]
    assert "keyring" not in steps(compiled(load("spec"), no_new_keyring=True))


@pytest.mark.parametrize(("value", "expected"), [(None, 0o022), (0, 0), (0o77, 0o77)])
def test_the_umask_defaults_to_022(value, expected) -> None:
    config = load("spec")
    if value is not None:
        config["process"]["user"]["umask"] = value
    assert [step[2] for step in compiled(config)["launch"] if step[0] == "umask"] == [expected]


@pytest.mark.parametrize(
    ("value", "kept"), [("1", True), ("true", True), ("0", False), ("yes", False)]
)
def test_original_groups_are_kept_by_the_annotation(value: str, kept: bool) -> None:
    config = load("docker")
    config["annotations"] = {"run.oci.keep_original_groups": value}
    groups = [step[4] for step in compiled(config)["launch"] if step[0] == "user"]
    assert groups == [None if kept else [0, 10]]


def test_the_working_directory_is_entered_twice() -> None:
    made = compiled(load("docker"))
    visits = [step[3] for step in made["launch"] if step[0] == "chdir"]
    assert visits == [False, True]
    before_user = [step[0] for step in made["launch"]].index("chdir")
    assert before_user < [step[0] for step in made["launch"]].index("user")


def test_without_a_process_there_is_nothing_to_launch() -> None:
    made = compiled(load("no-process"))
    assert [step[0] for step in made["start"]] == ["no_process"] and made["process"] is None
    rights = {step[0]: step[2:] for step in made["launch"]}
    assert rights["drop_bounding"] == (0,) and rights["capabilities"] == (0, 0, 0, 0, 0)
    assert "no_new_privs" in rights and "close_descriptors" in rights


def test_a_cgroup_mount_without_a_cgroup_is_refused() -> None:
    with pytest.raises(Error, match=r"mounts\[4\]: the container has no cgroup"):
        compiled(load("docker"), cgroup=None)


# exec -------------------------------------------------------------------------------------------

EXEC_FACTS = {
    **FACTS,
    "join": [("user", "/proc/7/ns/user"), ("mount", "/proc/7/ns/mnt")],
    "seccomp": None,
}


def exec_plan(process: dict | None = None, **facts) -> dict:
    config = load("spec")
    given_process = {**config["process"], "terminal": False, **(process or {})}
    return entering.compile_exec(config, given_process, {**EXEC_FACTS, **facts})


def test_exec_joins_all_and_mounts_nothing() -> None:
    made = exec_plan()
    assert [step[0] for step in made["prepare"]] == ["streams", "join_all"]
    assert made["prepare"][1][2] == [
        (const.CLONE_NEWUSER, 0, "/proc/7/ns/user"), (const.CLONE_NEWNS, 1, "/proc/7/ns/mnt"),
    ]  # fmt: skip
    allowed = {"become_root", "session", "keyring", "root_here", "home", "command", "join_late",
               "console", "affinity"}  # fmt: skip
    assert {step[0] for step in made["setup"]} <= allowed


def test_exec_becomes_root_first_only_in_a_user_namespace() -> None:
    assert exec_plan()["setup"][0][0] == "become_root"
    assert "become_root" not in steps(exec_plan(join=[("mount", "/m")]))


def test_exec_sets_the_first_affinity_early_and_the_final_one_late() -> None:
    made = exec_plan({"execCPUAffinity": {"initial": "0-1,3", "final": "2"}}, join=[])
    assert made["setup"][0] == ("affinity", "process.execCPUAffinity.initial", [0, 1, 3])
    assert made["launch"][0] == ("affinity", "process.execCPUAffinity.final", [2])


def test_exec_has_the_same_last_steps_as_create() -> None:
    config = load("spec")
    config["process"]["terminal"] = False
    made = compiled(config)["launch"]
    assert [step for step in made if step[0] != "hold_signals"] == exec_plan()["launch"]


@pytest.mark.parametrize(
    ("path", "signals", "held"), [("", True, 1), ("", False, 0), (None, True, 0), ("/p", True, 0)]
)
def test_signals_are_held_where_the_kernel_would_drop_them(
    path: str | None, signals: bool, held: int
) -> None:
    config = load("spec")
    spaces = config["linux"]["namespaces"]
    spaces[:] = [entry for entry in spaces if entry["type"] != "pid"]
    if path is not None:
        spaces.append({"type": "pid", "path": path})
    made = compiled(config, signals=signals)
    names = [step[0] for step in made["launch"]]
    # before the limits, which may leave no room for its descriptor
    assert [index for index, name in enumerate(names) if name == "hold_signals"] == [0] * held


@pytest.mark.parametrize("terminal", [False, True])
def test_exec_binds_no_console(terminal: bool) -> None:
    consoles = [step for step in exec_plan({"terminal": terminal})["setup"] if step[0] == "console"]
    assert [step[-2:] for step in consoles] == ([(False, False)] if terminal else [])


# cloned last ------------------------------------------------------------------------------------


def pod(**process: object) -> tuple[dict, dict]:
    """A configuration that joins the pid namespace of others, and its plan."""
    config = load("docker")
    config["process"].update(process)
    for entry in config["linux"]["namespaces"]:
        if entry["type"] == "pid":
            entry["path"] = "/proc/7/ns/pid"
    return config, compiled(config)


def test_a_pid_namespace_of_others_is_joined_when_the_root_is_entered() -> None:
    _, made = pod()
    assert made["late"] and made["pids"] == 0
    before(made, "pivot_root", "join_pids")
    before(made, "join_pids", "drop_bounding")
    assert not any(
        const.CLONE_NEWPID in [e[0] for e in step[2]]
        for step in made["prepare"]
        if step[0] == "join_all"
    )
    assert [step[0] for step in made["born"]][:1] == ["session"]


def test_nothing_that_takes_a_right_comes_after_the_clone() -> None:
    for made in (pod()[1], exec_plan({"terminal": True})):
        assert {step[0] for step in made["born"]} <= {"session", "controlling_terminal", "rlimits"}
        assert made["launch"][-1][0] in ("seccomp", "shed", "close_descriptors", "no_new_privs")


def test_a_filter_that_forbids_the_clone_comes_after_it_or_all_does() -> None:
    config = load("docker")
    for last in (False, True):
        process = {**config["process"], "noNewPrivileges": last}
        made = entering.compile_exec(
            config, process, {**EXEC_FACTS, "seccomp": FACTS["seccomp"], "clone": False}
        )
        names = [step[0] for step in made["born"]]
        assert names[0] == "session" and "seccomp" in names
        assert (made["launch"] == []) == (not last)
        assert "seccomp" not in [step[0] for step in made["launch"]]


@pytest.mark.parametrize("scheduler", [
    {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3},
    {"policy": "SCHED_FIFO", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
])  # fmt: skip
def test_a_scheduler_that_a_clone_does_not_pass_on_comes_after_it(scheduler: dict) -> None:
    made = exec_plan({"scheduler": scheduler})
    assert made["launch"] == [] and "scheduler" in [step[0] for step in made["born"]]
    assert "scheduler" in [
        step[0] for step in exec_plan({"scheduler": {"policy": "SCHED_IDLE"}})["launch"]
    ]


def test_the_limit_of_processes_comes_after_the_clone_that_it_would_count() -> None:
    limits = [{"type": name, "soft": 1, "hard": 1} for name in ("RLIMIT_NPROC", "RLIMIT_CORE")]
    made = exec_plan({"rlimits": limits})
    kinds = {
        phase: [e[0] for step in made[phase] if step[0] == "rlimits" for e in step[2]]
        for phase in ("launch", "born")
    }
    assert kinds == {"launch": [4], "born": [6]}


# Small functions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("0", [0]),
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("7, 1", [1, 7]),
        ("2-2", [2]),
        ("1,1-2", [1, 2]),
    ],
)
def test_lists_of_processors(text: str, numbers: list[int]) -> None:
    assert execution.cpus(text) == numbers


@given(st.sets(st.integers(0, 1023), max_size=40))
def test_lists_of_processors_are_read_back(numbers: set[int]) -> None:
    assert execution.cpus(",".join(map(str, numbers))) == sorted(numbers)


@pytest.mark.parametrize(
    ("path", "normal"),
    [("/", "/"), ("", "/"), ("/a//b/", "/a/b"), ("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/../..", "/"),
     ("a/b", "/a/b"), ("/a/b/../../..//c", "/c"), ("/...", "/..."), ("/.", "/")],
)  # fmt: skip
def test_paths_are_made_normal_by_their_text(path: str, normal: str) -> None:
    assert plan.normal(path) == normal


@given(st.text("/.a", max_size=20))
def test_a_normal_path_is_absolute_and_stays_as_it_is(path: str) -> None:
    import posixpath

    once = plan.normal(path)
    assert once == plan.normal(once)
    assert once.startswith("/") and not {"", ".", ".."} & set(
        once.split("/")[1:] if once != "/" else ["x"]
    )
    assert once == "/" + posixpath.normpath("/" + path).lstrip("/")


def test_namespaces_are_a_map_of_type_to_path() -> None:
    config = {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}]}}
    assert namespaces.of(config) == {"pid": "", "network": "/n"}
    assert namespaces.of({}) == {} == namespaces.of({"linux": None})
    assert not namespaces.own_user(config)
    assert namespaces.own_user(load("userns"))


def test_describe_does_not_print_a_program() -> None:
    lines = explain.describe(compiled(load("docker")))
    seccomp = [line for line in lines if "seccomp(" in line]
    assert seccomp == ["launch  seccomp(<100 instructions>)  # linux.seccomp"]


@pytest.mark.parametrize("kind", ["rootcontext", "fscontext", "defcontext", "context"])
def test_the_label_of_mounts_goes_where_the_annotation_says(kind: str) -> None:
    config = load("spec")
    config["linux"]["mountLabel"] = "a:b:c:s0"
    config["annotations"] = {"run.oci.mount_context_type": kind}
    assert f'{kind}="a:b:c:s0"' in str(compiled(config, selinux=True)["setup"])
    config["annotations"] = {"run.oci.mount_context_type": "size=1,context"}
    with pytest.raises(Error, match="mount_context_type"):
        compiled(config, selinux=True)


def test_every_step_has_words_for_people() -> None:
    from anocir.inside import init

    assert init.DOING.keys() == init.STEPS.keys()
    for name, words in init.DOING.items():
        assert "_" not in words.replace("no_new_privs", "")  # the kernel's own name
        assert " " in words or name in ("bind", "filesystem", "remount", "no_process", "hooks")


if __name__ == "__main__":
    for golden in NAMES:
        if "--update" in sys.argv:
            (GOLDEN / f"{golden}.txt").write_text(text(golden))
        else:
            print(text(golden))
