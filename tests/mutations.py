#!/usr/bin/python3
"""Break one feature at a time and see whether a test notices: do the tests test anything?

usage: mutations.py [--list] [--archive FILE] [NAME...]

Each mutation is code that is appended to modules in a temporary copy of the archive, where it replaces functions
(tests/security/controls.py); the tree and dist/ stay as they are. The tests that a row names run on the copy as on
any other runtime (RUNTIME=). A mutation is killed when one of them at least turns red. That says something only if

* all of them pass on the archive as it is, which is tried first, and
* a container still comes up and ends with the mutation: what breaks everything would be noticed by any test.

Prints a markdown table; exits with 1 if a mutation survives, breaks everything, or a test is red without any.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import NamedTuple

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, REPOSITORY)

from tests.reliability.ground import Progress  # noqa: E402
from tests.security import controls  # noqa: E402

SESSION_TIMEOUT = 180
LIFE = "test_lifecycle.py::test_start_runs_the_program_to_its_end"
VERSION = "test_cli.py::test_version_is_one_that_engines_can_read"


class Mutation(NamedTuple):
    """What is broken, the module that the code is appended to, and who should notice."""

    name: str
    module: str
    code: str
    tests: Sequence[str]
    # What has to stay green; for mutations that the check for leftovers sees in every test, less.
    healthy: str = LIFE


def nothing(function: str) -> str:
    """Code for a step that does nothing."""
    return f"def {function}(*_: object) -> None: pass"


MUTATIONS = (
    # the filter, privileges, identity
    Mutation(
        "drop seccomp",
        "inside/credentials",
        nothing("seccomp"),
        ["test_seccomp.py::test_the_errno_of_a_rule_is_used"],
    ),
    Mutation(
        "drop seccomp in exec only",
        "model/entering",
        "_exec = compile_exec\n"
        "def compile_exec(c, p, facts): return _exec(c, p, {**facts, 'seccomp': None})",
        ["test_seccomp.py::test_what_exec_runs_is_filtered_too"],
    ),
    Mutation(
        "keep the bounding set",
        "inside/credentials",
        nothing("drop_bounding"),
        [
            "test_capabilities.py::test_every_set_is_exactly_as_configured",
            "test_capabilities.py::test_root_gets_the_bounding_set_at_execve",
        ],
    ),
    Mutation(
        "keep ambient capabilities",
        "inside/credentials",
        "_capabilities = capabilities\n"
        "def capabilities(c, e, p, i, a): _capabilities(c, e, p, i, p & i)",
        ["test_capabilities.py::test_every_set_is_exactly_as_configured"],
    ),
    Mutation(
        "raise no ambient capabilities",
        "inside/credentials",
        "_capabilities = capabilities\n"
        "def capabilities(c, e, p, i, a): _capabilities(c, e, p, i, 0)",
        ["test_capabilities.py::test_an_ambient_capability_works_for_another_user"],
    ),
    Mutation(
        "set no capabilities",
        "inside/credentials",
        nothing("capabilities"),
        ["test_capabilities.py::test_every_set_is_exactly_as_configured"],
    ),
    Mutation(
        "no_new_privs not set",
        "inside/credentials",
        nothing("no_new_privs"),
        ["test_process.py::test_no_new_privileges_is_as_configured"],
    ),
    Mutation(
        "additional gids dropped",
        "inside/credentials",
        "_user = user\ndef user(c, uid, gid, gids): _user(c, uid, gid, [])",
        ["test_process.py::test_uid_gid_and_additional_gids_are_exactly_as_configured"],
    ),
    Mutation(
        "the caller's groups kept",
        "inside/credentials",
        "_user = user\ndef user(c, uid, gid, gids): _user(c, uid, gid, None)",
        ["test_process.py::test_without_additional_gids_the_callers_groups_are_dropped"],
    ),
    Mutation(
        "ignore umask",
        "inside/process",
        "def umask(context, mask): files.umask(0o022)",
        ["test_process.py::test_the_umask_is_set"],
    ),
    Mutation(
        "umask of the caller by default",
        "inside/process",
        "def umask(context, mask): mask == 0o022 or files.umask(mask)",
        ["test_process.py::test_the_umask_is_022_whatever_the_caller_has"],
    ),
    # the process
    Mutation(
        "leak a descriptor",
        "inside/program",
        "_close = close_descriptors\n"
        "def close_descriptors(context):\n"
        "    _close(context)\n"
        "    files.set_inheritable(files.open('/', files.O_PATH), True)",
        [
            "test_process.py::test_only_the_standard_streams_are_open",
            "test_exec.py::test_exec_leaks_no_descriptor",
        ],
    ),
    Mutation(
        "leave signals ignored",
        "inside/program",
        "oneself.default_signal = lambda number: None",
        ["test_process.py::test_no_signal_is_ignored_or_blocked"],
    ),
    Mutation(
        "HOME missing",
        "inside/program",
        nothing("home"),
        ["test_process.py::test_home_is_taken_from_the_containers_passwd_when_it_is_not_set"],
    ),
    Mutation(
        "HOME missing in exec only",
        "model/entering",
        "_exec = compile_exec\n"
        "def compile_exec(*args):\n"
        "    made = _exec(*args)\n"
        "    made['setup'] = [step for step in made['setup'] if step[0] != 'home']\n"
        "    return made",
        ["test_mutated.py::test_home_of_exec_is_that_of_its_user"],
    ),
    Mutation(
        "a variable too many",
        "inside/program",
        "_prepare = prepare\n"
        "def prepare(context, check):\n"
        "    context.env.append('LEAK=1')\n"
        "    _prepare(context, check)",
        ["test_process.py::test_the_environment_is_exactly_the_configured_one"],
    ),
    Mutation(
        "stay in the root directory",
        "inside/program",
        nothing("chdir"),
        ["test_process.py::test_the_working_directory_is_set"],
    ),
    Mutation(
        "rlimits ignored",
        "inside/process",
        nothing("rlimits"),
        ["test_rlimits.py::test_many_limits_are_set_at_once"],
    ),
    Mutation(
        "the caller's processors kept",
        "inside/process",
        nothing("reset_affinity").replace("*_: object", ""),
        ["test_process.py::test_the_callers_affinity_is_not_inherited"],
    ),
    Mutation(
        "streams stay the caller's",
        "inside/process",
        nothing("own_stdio"),
        ["test_process.py::test_a_pipe_as_stdout_of_another_user_can_be_reopened"],
    ),
    Mutation(
        "oom_score_adj ignored",
        "host/launch",
        "def adjust(init, config, rootless): raise_limits(init.pid, config.get('process') or {})",
        ["test_process.py::test_the_oom_score_adjustment_is_set"],
    ),
    Mutation(
        "oom_score_adj ignored in exec only",
        "host/exec",
        "launch.adjust = lambda *_: None",
        ["test_mutated.py::test_the_oom_score_adjustment_is_that_of_exec_too"],
    ),
    Mutation(
        "no session keyring",
        "inside/credentials",
        nothing("keyring"),
        ["test_process.py::test_the_program_has_a_session_keyring_of_its_own"],
    ),
    Mutation(
        "personality ignored",
        "inside/process",
        nothing("personality"),
        ["test_process.py::test_the_personality_is_set"],
    ),
    Mutation(
        "terminal size ignored",
        "inside/console",
        "_console = console\n"
        "def console(context, uid, height, width, bind): _console(context, uid, 0, 0, bind)",
        ["test_terminal.py::test_the_console_size_is_applied"],
    ),
    Mutation(
        "terminal size ignored in exec only",
        "inside/console",
        "_console = console\n"
        "def console(context, uid, height, width, bind):\n"
        "    _console(context, uid, height * bind, width * bind, bind)",
        ["test_mutated.py::test_the_console_size_of_exec_is_applied"],
    ),
    Mutation(
        "the terminal stays root's",
        "inside/console",
        "_console = console\ndef console(context, uid, *rest): _console(context, 0, *rest)",
        ["test_terminal.py::test_the_terminal_belongs_to_the_programs_user"],
    ),
    # files
    Mutation(
        "skip maskedPaths",
        "inside/masks",
        nothing("masked_path"),
        [
            "test_paths.py::test_a_masked_file_reads_as_empty",
            "test_paths.py::test_a_masked_directory_is_empty_and_cannot_be_written",
        ],
    ),
    Mutation(
        "one masked directory only",
        "inside/masks",
        "_mask = _mask_directory\n"
        "def _mask_directory(context, target, label):\n"
        "    if context.mask_fd < 0: _mask(context, target, label)",
        ["test_mutated.py::test_every_masked_directory_is_masked"],
    ),
    Mutation(
        "readonlyPaths lose the mounts below",
        "inside/masks",
        "_cloned, _path = _clone, readonly_path\n"
        "def readonly_path(*args):\n"
        "    global _clone\n"
        "    _clone = lambda fd, recursive: _cloned(fd, False)\n"
        "    _path(*args)\n"
        "    _clone = _cloned",
        ["test_mutated.py::test_a_mount_below_a_readonly_path_stays"],
    ),
    Mutation(
        "skip readonlyPaths",
        "inside/masks",
        nothing("readonly_path"),
        [
            "test_paths.py::test_a_readonly_path_can_be_read_and_not_written",
            "test_paths.py::test_usual_readonly_paths_of_proc_hold",
        ],
    ),
    Mutation(
        "root.readonly ignored",
        "inside/root",
        nothing("root_readonly"),
        ["test_root.py::test_readonly_is_as_configured"],
    ),
    Mutation(
        "rootfs propagation ignored",
        "inside/root",
        nothing("final_propagation"),
        ["test_root.py::test_the_propagation_of_the_root_is_as_configured"],
    ),
    Mutation(
        "propagation of mounts ignored",
        "inside/attach",
        nothing("propagate"),
        ["test_mounts.py::test_the_propagation_of_a_mount_is_as_configured"],
    ),
    Mutation(
        "flags of binds ignored",
        "inside/mounts",
        "_bind = bind\n"
        "def bind(c, index, source, destination, options):\n"
        "    _bind(c, index, source, destination, {**options, 'set': 0, 'clear': 0})",
        [
            "test_mounts.py::test_a_read_only_bind_cannot_be_written_but_its_source_can",
            "test_mounts.py::test_noexec_is_enforced",
        ],
    ),
    Mutation(
        "flags of file systems ignored",
        "inside/mounts",
        "_filesystem = filesystem\n"
        "def filesystem(c, kind, source, destination, options):\n"
        "    plain = {**options, 'set': 0, 'ms': 0, 'super': []}\n"
        "    _filesystem(c, kind, source, destination, plain)",
        ["test_mounts.py::test_a_read_only_tmpfs_is_read_only"],
    ),
    Mutation(
        "recursive options ignored",
        "inside/attach",
        nothing("recursive"),
        ["test_mounts.py::test_rro_reaches_the_mounts_below_and_ro_does_not"],
    ),
    Mutation(
        "options of file systems ignored",
        "inside/mounts",
        "_filesystem = filesystem\n"
        "def filesystem(c, kind, source, destination, options):\n"
        "    _filesystem(c, kind, source, destination, {**options, 'data': []})",
        ["test_mounts.py::test_file_system_options_are_passed_as_data"],
    ),
    Mutation(
        "the old root stays mounted",
        "inside/root",
        "mounts.umount2 = lambda *_: None",
        ["test_root.py::test_the_old_root_is_not_mounted_anywhere"],
    ),
    Mutation(
        "owners of devices ignored",
        "inside/devices",
        "_device = device\n"
        "def device(c, path, kind, major, minor, mode, uid, gid, bind):\n"
        "    _device(c, path, kind, major, minor, mode, 0, 0, bind)",
        ["test_devices.py::test_listed_devices_are_made_with_type_number_mode_and_owner"],
    ),
    Mutation(
        "modes of devices ignored",
        "inside/devices",
        "_device = device\n"
        "def device(c, path, kind, major, minor, mode, *rest):\n"
        "    _device(c, path, kind, major, minor, 0o600, *rest)",
        [
            "test_devices.py::test_listed_devices_are_made_with_type_number_mode_and_owner",
            "test_devices.py::test_the_default_mode_of_a_device_is_666",
        ],
    ),
    # namespaces
    Mutation(
        "sysctl not written",
        "inside/procfs",
        nothing("sysctl"),
        ["test_sysctl.py::test_a_namespaced_parameter_is_set"],
    ),
    Mutation(
        "the loopback stays down",
        "linux/tasks",
        nothing("loopback_up"),
        ["test_namespaces.py::test_a_new_network_namespace_has_only_the_loopback_and_it_is_up"],
    ),
    Mutation(
        "hostname not set",
        "inside/namespaces",
        nothing("hostname"),
        ["test_namespaces.py::test_the_hostname_is_set_and_the_host_keeps_its_own"],
    ),
    Mutation(
        "time offsets ignored",
        "inside/namespaces",
        nothing("time_offsets"),
        ["test_namespaces.py::test_time_offsets_move_the_clocks"],
    ),
    Mutation(
        "the cgroup namespace comes too early",
        "model/plan",
        "_join = _join_cgroups\n"
        "def _join_cgroups(setup, new_namespace):\n"
        "    _join(setup, False)\n"
        "    if new_namespace:\n"
        "        setup.insert(0, ('unshare', 'linux.namespaces', CLONE_NEWCGROUP))",
        [
            "test_namespaces.py::test_a_new_cgroup_namespace_starts_at_the_containers_cgroup",
            "test_mounts.py::test_a_cgroup_mount_shows_the_containers_own_cgroup",
        ],
    ),
    Mutation(
        "exec leaves out a namespace",
        "host/exec",
        "namespaces.FILES = {k: v for k, v in namespaces.FILES.items() if k != 'ipc'}",
        ["test_exec.py::test_exec_runs_in_every_namespace_of_the_container"],
    ),
    # cgroups
    Mutation(
        "no cgroup device rules",
        "cgroup/devices",
        "def effective(rules): return [(True, *_DENY_ALL[1:])]",
        [
            "test_devices.py::test_a_device_that_is_not_allowed_cannot_be_opened",
            "test_devices.py::test_without_rules_only_the_default_devices_can_be_used",
        ],
    ),
    Mutation(
        "device rules in reversed order",
        "cgroup/devices",
        "_effective = effective\n"
        "def effective(rules):\n"
        "    first, *others = _effective(rules)\n"
        "    return [first, *others[::-1]]",
        ["test_devices.py::test_a_later_rule_takes_back_what_an_earlier_one_gave"],
    ),
    Mutation(
        "memory limit not written",
        "cgroup/knobs",
        "_write = write\n"
        "def write(writes, directories, undo=None):\n"
        "    _write([w for w in writes if w[0] != 'memory'], directories, undo)",
        [
            "test_cgroups.py::test_the_memory_limit_is_set",
            "test_cgroups.py::test_the_memory_limit_is_enforced",
        ],
    ),
    Mutation(
        "memory limit of the wrong size",
        "cgroup/knobs",
        "_write = write\n"
        "def write(writes, directories, undo=None):\n"
        "    many = [(c, f, v + '000' if c == 'memory' and v.isdigit() else v, *r)\n"
        "            for c, f, v, *r in writes]\n"
        "    _write(many, directories, undo)",
        ["test_cgroups.py::test_the_memory_limit_is_set"],
    ),
    Mutation(
        "exec joins no cgroup",
        "host/exec",
        "_send = joining.send_cgroups\n"
        "_NONE = {'into': '', 'tasks': [], 'late': []}\n"
        "joining.send_cgroups = lambda init, joining: _send(init, _NONE)\n"
        "_load = cgroup.load\n"
        "class _Away:\n"
        "    def __init__(self, record): self.manager = _load(record)\n"
        "    def __getattr__(self, name): return getattr(self.manager, name)\n"
        "    def exec_join(self, *_): pass\n"
        "cgroup.load = _Away",
        ["test_exec.py::test_exec_is_in_the_containers_cgroup"],
    ),
    Mutation(
        "update changes nothing",
        "host/update",
        nothing("update"),
        ["test_cgroups.py::test_update_changes_only_what_it_is_given"],
    ),
    Mutation(
        "pause freezes nothing",
        "host/freeze",
        nothing("pause"),
        ["test_lifecycle.py::test_pause_stops_the_processes_and_resume_lets_them_go_on"],
    ),
    Mutation(
        "resume thaws nothing",
        "host/freeze",
        nothing("resume"),
        ["test_lifecycle.py::test_pause_stops_the_processes_and_resume_lets_them_go_on"],
    ),
    Mutation(
        "delete leaves cgroups",
        "cgroup",
        nothing("destroy"),
        ["test_cgroups.py::test_delete_removes_the_cgroup_at_once"],
        VERSION,
    ),
    # hooks
    Mutation(
        "createRuntime hooks before prestart",
        "host/create",
        "def _host_hooks(init, container, config):\n"
        "    entries = config.get('hooks') or {}\n"
        "    if not entries.get('prestart') and not entries.get('createRuntime'): return\n"
        "    init.expect(channel.HOOKS, '')\n"
        "    state = states.oci_state(container, states.CREATED, init.pid)\n"
        "    for name in ('createRuntime', 'prestart'):\n"
        "        for hook in entries.get(name) or []:\n"
        "            hooks.run(hook, jsonio.dumps(state).encode(), name)\n"
        "    init.channel.send(channel.DONE)",
        ["test_hooks.py::test_all_hooks_run_in_their_place_and_in_the_listed_order"],
    ),
    Mutation(
        "hooks of init in reversed order",
        "inside/init",
        "STEPS['hooks'] = lambda context, entries, name: _hooks(context, entries[::-1], name)",
        ["test_hooks.py::test_all_hooks_run_in_their_place_and_in_the_listed_order"],
    ),
    Mutation(
        "wrong status for hooks",
        "host/create",
        "_oci_state = states.oci_state\n"
        "states.oci_state = lambda c, status, pid=None: _oci_state(c, states.CREATING, pid)",
        ["test_hooks.py::test_the_state_given_to_a_hook_has_the_status_of_its_place"],
    ),
    Mutation(
        "poststop hooks before the clearing",
        "host/ending",
        "_destroy = destroy\n"
        "def destroy(settings, container, config):\n"
        "    entries = (config.get('hooks') or {}).get('poststop') or []\n"
        "    from . import start\n"
        "    start._run_hooks('poststop', entries, states.oci_state(container, states.STOPPED))\n"
        "    _destroy(settings, container, {**config, 'hooks': {}})",
        ["test_hooks.py::test_poststop_hooks_run_when_delete_has_cleared_away"],
    ),
    Mutation(
        "a failing hook is passed over",
        "base/hooks",
        "_run = run\ndef run(*args):\n    try: _run(*args)\n    except Error: pass",
        ["test_hooks.py::test_a_failing_hook_of_create_fails_create_and_leaves_nothing"],
    ),
    Mutation(
        "the caller's variables reach hooks",
        "base/hooks",
        "_spawn_it = spawn.spawn\n"
        "spawn.spawn = lambda path, args, env, *rest: (\n"
        "    _spawn_it(path, args, {**posix.environ, **env}, *rest))",
        ["test_hooks.py::test_a_hook_inside_without_env_gets_nothing_of_the_callers"],
    ),
    Mutation(
        "the caller's descriptors reach hooks",
        "base/hooks",
        "oneself.close_on_exec = lambda first: None",
        ["test_mutated.py::test_a_hook_has_no_descriptor_of_the_caller"],
    ),
    # operations
    Mutation(
        "state says running too early",
        "host/states",
        "_state = state\n"
        "def state(settings, container_id):\n"
        "    found = _state(settings, container_id)\n"
        "    return {**found, 'status': found['status'].replace(CREATED, RUNNING)}",
        ["test_state.py::test_state_tells_created_running_and_stopped"],
    ),
    Mutation(
        "state without annotations",
        "host/states",
        "_oci_state = oci_state\n"
        "def oci_state(*args):\n"
        "    found = _oci_state(*args)\n"
        "    found.pop('annotations', None)\n"
        "    return found",
        ["test_state.py::test_state_carries_the_annotations_exactly"],
    ),
    Mutation(
        "start swallows exec errors",
        "inside/init",
        "_before = _launch\ndef _launch(context, mode): _before(context, b'container')",
        [
            "test_lifecycle.py::test_start_reports_a_program_that_is_not_executable_format",
            "test_lifecycle.py::test_start_reports_a_script_whose_interpreter_is_missing",
        ],
    ),
    Mutation(
        "kill sends SIGTERM always",
        "commands/kill",
        "def signal_number(text): return 15",
        ["test_lifecycle.py::test_kill_sends_the_signal_by_name_or_number"],
    ),
    Mutation(
        "kill --all is kill",
        "host/kill",
        "_kill = kill\n"
        "def kill(settings, container_id, text, options):\n"
        "    _kill(settings, container_id, text, {**options, 'all': False})",
        ["test_mutated.py::test_a_signal_for_all_reaches_more_than_the_first_process"],
    ),
    Mutation(
        "kill is kill --all",
        "host/kill",
        "_kill = kill\n"
        "def kill(settings, container_id, text, options):\n"
        "    _kill(settings, container_id, text, {**options, 'all': True})",
        ["test_mutated.py::test_a_signal_reaches_the_first_process_only"],
    ),
    Mutation(
        "start reads config.json again",
        "host/store",
        "Container.config = lambda self: (\n"
        "    jsonio.loads(files.read_file(self.intent['bundle'] + '/config.json')))",
        [
            "test_lifecycle.py::test_changing_config_json_after_create_has_no_effect",
            "test_lifecycle.py::test_a_container_can_be_deleted_after_its_bundle_is_gone",
        ],
    ),
    Mutation(
        "a failed create leaves its state",
        "host/create",
        "def _undo(settings, init, container, config, error): init.kill()",
        ["test_lifecycle.py::test_a_failed_create_leaves_the_id_free"],
    ),
    Mutation(
        "a newline in the pid file",
        "host/launch",
        "_write_pid_file = write_pid_file\n"
        "def write_pid_file(path, pid): _write_pid_file(path, f'{pid}\\n')",
        ["test_cli.py::test_the_pid_file_holds_digits_only"],
    ),
    Mutation(
        "delete takes what is running",
        "host/transitions",
        "ALLOWED['delete'] += ('running',)",
        ["test_lifecycle.py::test_delete_of_a_running_container_is_refused_without_effect"],
    ),
    Mutation(
        "run forgets the exit status",
        "host/run",
        "_run = run\ndef run(*args): return _run(*args) and 0",
        ["test_lifecycle.py::test_run_exits_with_the_status_of_the_program"],
    ),
    Mutation(
        "exec forgets the exit status",
        "host/exec",
        "_execute = execute\ndef execute(*args): return _execute(*args) and 0",
        ["test_exec.py::test_exec_exits_with_the_status_of_the_command"],
    ),
)


def run_tests(directory: str, runtime: str, tests: Sequence[str]) -> dict[str, str]:
    """Run tests on a runtime: "passed", "red" or why it was skipped, by "file::function[parameters]"."""
    report = os.path.join(directory, "report.xml")
    paths = [os.path.join("tests", "runtime", test) for test in dict.fromkeys(tests)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=60"]
    done = subprocess.run(
        [*command, f"--junit-xml={report}", *paths],
        cwd=REPOSITORY,
        env={**os.environ, "RUNTIME": runtime, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SESSION_TIMEOUT,
    )
    if done.returncode not in (0, 1):  # a name that does not exist, an error in a test file
        sys.exit(f"pytest ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    results: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("classname", "").rpartition(".")[2] + ".py"
        name = f"{file}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results[name] = "red"  # two cases in the report if the fixture fails as well
        elif skipped is not None:
            results.setdefault(name, skipped.get("message", ""))
        else:
            results.setdefault(name, "passed")
    os.unlink(report)
    return results


def of(results: dict[str, str], tests: Sequence[str]) -> list[str]:
    """The results of these tests, which may have parameters."""
    return [result for name, result in results.items() if name.partition("[")[0] in tests]


def judge(mutation: Mutation, results: dict[str, str], before: dict[str, str]) -> tuple[str, str]:
    """("3 of 4", "killed" or what is wrong) for one mutation."""
    found = of(results, mutation.tests)
    red = found.count("red")
    share = f"{red} of {len(found)}"
    if "red" in of(results, [mutation.healthy]):
        return share, "BREAKS EVERYTHING"
    if "red" in of(before, mutation.tests):
        return share, "RED WITHOUT IT"
    if "passed" not in of(before, mutation.tests):
        return share, "left out: " + (of(before, mutation.tests) or ["no such test"])[0]
    return share, "killed" if red else "SURVIVES"


def table(rows: Sequence[tuple[Mutation, str, str]]) -> str:
    """The result as markdown."""
    lines = ["| Mutation | Module | Tests | Red | |", "|---|---|---|---|---|"]
    for mutation, share, verdict in rows:
        tests = "<br>".join(test.replace("test_", "", 1) for test in mutation.tests)
        lines.append(f"| {mutation.name} | {mutation.module} | {tests} | {share} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """Do it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a mutation's name [all]")
    parser.add_argument("--list", action="store_true", help="print the mutations only")
    parser.add_argument("--archive", default=os.path.join(REPOSITORY, "dist", "anocir"))
    options = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not options.names or any(name in mutation.name for name in options.names)
    ]
    if options.list or not chosen:
        print("\n".join(mutation.name for mutation in chosen or MUTATIONS))
        return 0 if chosen else 2
    if not os.path.exists(options.archive):
        sys.exit(f"there is no {options.archive}: run make build")
    began = time.monotonic()
    progress = Progress("mutations", len(chosen) + 1)
    directory = tempfile.mkdtemp(prefix="anocir-mutations-")
    rows = []
    try:
        os.chmod(directory, 0o755)
        # A build meanwhile must not change what is compared.
        intact = shutil.copy2(options.archive, os.path.join(directory, "anocir"))
        progress.step("the archive as it is")
        tests = [test for mutation in chosen for test in (mutation.healthy, *mutation.tests)]
        before = run_tests(directory, intact, tests)
        for mutation in chosen:
            progress.step(mutation.name)
            broken = os.path.join(directory, "anocir-mutated")
            controls.altered(intact, broken, {mutation.module: mutation.code})
            results = run_tests(directory, broken, [mutation.healthy, *mutation.tests])
            rows.append((mutation, *judge(mutation, results, before)))
    finally:
        progress.end()
        shutil.rmtree(directory)
    print(table(rows))
    bad = [mutation.name for mutation, _, verdict in rows if verdict.isupper()]
    killed = sum(verdict == "killed" for _, _, verdict in rows)
    print(f"\n{killed} of {len(rows)} killed in {time.monotonic() - began:.0f} s", end="")
    print("; look at: " + ", ".join(bad) if bad else "")
    for name in sorted(name for name, result in before.items() if result == "red"):
        print(f"red without any mutation: {name}")
    return 1 if bad or "red" in before.values() else 0


if __name__ == "__main__":
    sys.exit(main())
