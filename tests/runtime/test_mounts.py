"""Mounts (config.md, "Mounts" and "Linux mount options"; config-linux.md, "Default Filesystems")."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests import machine
from tests.drive import Container


def mounts_of(container: Container) -> list[dict[str, Any]]:
    """Run a program that shows its mounts and return them as dictionaries."""
    rows = []
    for line in container.run("cat /proc/self/mountinfo").splitlines():
        words = line.split()
        dash = words.index("-")
        rows.append(
            {
                "root": words[3],
                "point": words[4],
                "options": set(words[5].split(",")),
                "fields": [word.partition(":")[0] for word in words[6:dash]],
                "type": words[dash + 1],
                "source": words[dash + 2],
                "super": set(words[dash + 3].split(",")),
            }
        )
    return rows


def mount_on(container: Container, point: str) -> dict[str, Any]:
    """The topmost mount on a point."""
    found = [row for row in mounts_of(container) if row["point"] == point]
    assert found, f"nothing is mounted on {point}"
    return found[-1]


# the usual file systems ---------------------------------------------------------------------------


def test_the_default_file_systems_have_their_types(container: Container) -> None:
    found = {row["point"]: row["type"] for row in mounts_of(container)}
    assert found["/proc"] == "proc"
    assert found["/sys"] == "sysfs"
    assert found["/dev/pts"] == "devpts"
    assert found["/dev/shm"] == "tmpfs"
    assert found["/dev/mqueue"] == "mqueue"


def test_mounts_appear_in_the_order_of_the_configuration(container: Container) -> None:
    for number in range(5):
        container.bundle.add_mount(f"/m{number}", "tmpfs", f"tmpfs{number}")
    wanted = [entry["destination"] for entry in container.config["mounts"]]
    found = [row["point"] for row in mounts_of(container)]
    assert [point for point in found if point in wanted] == wanted


def test_a_later_mount_hides_an_earlier_one(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "first")
    container.bundle.add_mount("/m", "tmpfs", "second")
    assert mount_on(container, "/m")["source"] == "second"


def test_proc_is_that_of_the_containers_pid_namespace(container: Container) -> None:
    assert container.run("ls -d /proc/[0-9]*").split()[0] == "/proc/1"
    assert int(container.run("ls -d /proc/[0-9]* | wc -l")) < 6


def test_file_system_options_are_passed_as_data(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "size=64k", "mode=1750", "nr_inodes=100")
    row = mount_on(container, "/m")
    assert {"size=64k", "mode=1750", "nr_inodes=100"} <= row["super"]
    assert container.run("stat -c %a /m") == "1750\n"


def test_an_unknown_file_system_option_is_the_kernels_error(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "no_such_option=1")
    container.refused()


def test_an_unknown_file_system_type_is_refused(container: Container) -> None:
    container.bundle.add_mount("/m", "nosuchfs", "none")
    assert "no such device" in container.refused().lower()


def test_the_source_name_is_kept(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "my-source")
    assert mount_on(container, "/m")["source"] == "my-source"


def test_proc_takes_hidepid(container: Container) -> None:
    container.bundle.drop_mount("/proc")
    container.config["mounts"].insert(
        0, {"destination": "/proc", "type": "proc", "source": "proc", "options": ["hidepid=2"]}
    )
    assert "hidepid" in " ".join(mount_on(container, "/proc")["super"])


@pytest.mark.needs("overlay")
def test_an_overlay_is_mounted_with_its_layers(container: Container) -> None:
    layers = [container.bundle.outside(name) for name in ("lower", "upper", "work")]
    with open(os.path.join(layers[0], "file"), "w") as file:
        file.write("below\n")
    options = [f"{name}dir={path}" for name, path in zip(("lower", "upper", "work"), layers)]
    container.bundle.add_mount("/m", "overlay", "overlay", *options)
    assert container.run("cat /m/file; touch /m/new") == "below\n"
    assert os.path.exists(os.path.join(layers[1], "new"))


# destinations -------------------------------------------------------------------------------------


def test_a_missing_destination_directory_is_made(container: Container) -> None:
    container.bundle.add_mount("/not/there/yet", "tmpfs", "tmpfs")
    assert mount_on(container, "/not/there/yet")["type"] == "tmpfs"


def test_a_relative_destination_is_taken_from_the_root(container: Container) -> None:
    container.bundle.add_mount("relative/place", "tmpfs", "tmpfs")
    assert mount_on(container, "/relative/place")["type"] == "tmpfs"


def test_a_bound_file_gets_a_file_as_destination(container: Container) -> None:
    source = container.bundle.outside("file", "content\n")
    container.bundle.add_mount("/deep/down/file", "none", source, "bind")
    assert container.run("cat /deep/down/file") == "content\n"


def test_an_absolute_link_as_destination_stays_in_the_root(container: Container) -> None:
    container.bundle.make_directory("/real")
    os.symlink("/real", os.path.join(container.bundle.rootfs, "link"))
    container.bundle.add_mount("/link", "tmpfs", "tmpfs")
    assert mount_on(container, "/real")["type"] == "tmpfs"


@pytest.mark.parametrize("target", ["/", "../../../../../../../../", "/tmp"])
def test_a_link_in_the_image_never_leads_a_mount_to_the_host(
    container: Container, target: str
) -> None:
    name = f"anocir-escape-{container.id}"
    os.symlink(target, os.path.join(container.bundle.rootfs, "link"))
    container.bundle.add_mount(f"/link/{name}", "tmpfs", "tmpfs")
    container.create(ok=None)
    for place in ("/", "/tmp/"):
        assert not os.path.lexists(place + name), "the runtime made a directory on the host"


def test_a_dangling_link_as_destination_does_not_reach_the_host(container: Container) -> None:
    os.symlink("/var/not-there", os.path.join(container.bundle.rootfs, "link"))
    container.bundle.add_mount("/link", "tmpfs", "tmpfs")
    container.create(ok=None)
    assert not os.path.lexists("/var/not-there")


def test_a_mount_below_a_linked_directory_is_found_inside(container: Container) -> None:
    container.bundle.make_directory("/run")
    container.bundle.make_directory("/var")
    os.symlink("/run", os.path.join(container.bundle.rootfs, "var/run"))
    container.bundle.add_mount("/var/run/secrets", "tmpfs", "tmpfs")
    assert mount_on(container, "/run/secrets")["type"] == "tmpfs"


# binds --------------------------------------------------------------------------------------------


def bound(container: Container, *options: str) -> str:
    """Bind a new host directory on /m; returns that directory."""
    source = container.bundle.outside("source")
    container.bundle.add_mount("/m", "none", source, *options)
    return source


def test_a_bind_shows_the_directory_and_is_writable(container: Container) -> None:
    source = bound(container, "bind")
    container.run("echo text > /m/file")
    with open(os.path.join(source, "file")) as file:
        assert file.read() == "text\n"


def test_a_bind_needs_no_type(container: Container) -> None:
    source = container.bundle.outside("source")
    container.bundle.add_mount("/m", "", source, "bind")
    assert container.run("touch /m/file; ls /m") == "file\n"


def test_a_relative_source_of_a_bind_is_taken_from_the_bundle(container: Container) -> None:
    container.bundle.outside("source-here", "content\n")
    container.bundle.add_mount("/m", "none", "source-here", "bind")
    assert container.run("cat /m") == "content\n"


def test_a_bind_follows_a_link_as_source(container: Container) -> None:
    container.bundle.outside("real", "content\n")
    os.symlink("real", os.path.join(container.bundle.path, "link"))
    container.bundle.add_mount("/m", "none", os.path.join(container.bundle.path, "link"), "bind")
    assert container.run("cat /m") == "content\n"


def test_a_bind_of_a_source_that_is_missing_is_refused(container: Container) -> None:
    container.bundle.add_mount("/m", "none", "/no/such/source", "bind")
    message = container.refused()
    assert "/no/such/source" in message or "/m" in message
    assert "no such file or directory" in message.lower()


def test_a_directory_cannot_be_bound_on_a_file(container: Container) -> None:
    source = container.bundle.outside("source")
    container.bundle.put("/file")
    container.bundle.add_mount("/file", "none", source, "bind")
    assert "not a directory" in container.refused().lower()


def test_type_bind_without_the_option_is_a_bind_or_an_error_of_one_line(
    container: Container,
) -> None:
    source = container.bundle.outside("source", "content\n")
    container.bundle.add_mount("/m", "bind", source)
    result = container.try_run("cat /m")
    assert result.stdout == "content\n" or result.status != 0


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("relatime", "relatime"),
    ],
)
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_mount_flag_is_set(container: Container, kind: str, option: str, flag: str) -> None:
    if kind == "bind":
        bound(container, "bind", option)
    else:
        container.bundle.add_mount("/m", "tmpfs", "tmpfs", option)
    assert flag in mount_on(container, "/m")["options"]


@pytest.mark.parametrize(
    ("first", "second", "flag"),
    [
        ("ro", "rw", "ro"),
        ("nosuid", "suid", "nosuid"),
        ("nodev", "dev", "nodev"),
        ("noexec", "exec", "noexec"),
        ("noatime", "atime", "noatime"),
        ("nodiratime", "diratime", "nodiratime"),
    ],
)
def test_the_last_of_two_opposite_options_wins(
    container: Container, first: str, second: str, flag: str
) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", first, second)
    container.bundle.add_mount("/n", "tmpfs", "tmpfs", second, first)
    rows = {row["point"]: row["options"] for row in mounts_of(container)}
    assert flag not in rows["/m"]
    assert flag in rows["/n"]


@pytest.mark.parametrize(
    "option",
    [
        "async", "atime", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime",
        "loud", "noiversion", "nolazytime", "norelatime", "nostrictatime", "silent",
        "strictatime", "suid", "sync", "rw", "relatime",
    ],
)  # fmt: skip
def test_an_option_that_every_runtime_must_know_is_taken(container: Container, option: str) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", option)
    assert mount_on(container, "/m")["type"] == "tmpfs"


def test_sync_and_dirsync_reach_the_file_system(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "sync", "dirsync")
    row = mount_on(container, "/m")
    assert {"sync", "dirsync"} <= row["super"] | row["options"]


def test_nosymfollow_is_enforced(container: Container) -> None:
    source = bound(container, "bind", "nosymfollow")
    os.symlink("/etc/passwd", os.path.join(source, "link"))
    assert container.run("cat /m/link 2>/dev/null || echo refused") == "refused\n"


def test_a_read_only_bind_cannot_be_written_but_its_source_can(container: Container) -> None:
    source = bound(container, "bind", "ro")
    assert "Read-only" in container.run("touch /m/file 2>&1; true")
    with open(os.path.join(source, "file"), "w") as file:
        file.write("host\n")


def test_noexec_is_enforced(container: Container) -> None:
    source = bound(container, "bind", "noexec")
    path = os.path.join(source, "tool")
    with open(path, "w") as file:
        file.write("#!/bin/sh\necho ran\n")
    os.chmod(path, 0o755)
    assert "ran" not in container.run("/m/tool 2>&1; true")


@pytest.fixture
def nested(container: Container) -> str:
    """A host directory with a file system of its own inside, bound on /m by the test."""
    source = container.bundle.outside("source")
    os.mkdir(os.path.join(source, "inner"))
    return source


def with_inner_mount(source: str) -> None:
    """Mount a tmpfs with one file on the inner directory."""
    machine.mount("inner", os.path.join(source, "inner"), "tmpfs", 0)
    with open(os.path.join(source, "inner", "file"), "w") as file:
        file.write("inner\n")


def detach_below(directory: str) -> None:
    """Unmount a directory and what is mounted below it; one call may take several copies away."""
    while True:
        points = [row[0][4] for row in machine.mountinfo() if row[0][4].startswith(directory)]
        if not points:
            return
        machine.umount(points[-1], machine.MNT_DETACH)


@pytest.mark.parametrize(("option", "listing"), [("rbind", "file\n"), ("bind", "")])
def test_rbind_takes_the_mounts_below_and_bind_does_not(
    container: Container, nested: str, option: str, listing: str
) -> None:
    with_inner_mount(nested)
    try:
        container.bundle.add_mount("/m", "none", nested, option)
        assert container.run("ls /m/inner") == listing
    finally:
        machine.umount(os.path.join(nested, "inner"), machine.MNT_DETACH)


@pytest.mark.parametrize(
    ("option", "inner_ro"),
    [("ro", False), pytest.param("rro", True, marks=pytest.mark.needs("mount_setattr"))],
)
def test_rro_reaches_the_mounts_below_and_ro_does_not(
    container: Container, nested: str, option: str, inner_ro: bool
) -> None:
    with_inner_mount(nested)
    try:
        container.bundle.add_mount("/m", "none", nested, "rbind", option)
        rows = {row["point"]: row["options"] for row in mounts_of(container)}
        assert "ro" in rows["/m"]
        assert ("ro" in rows["/m/inner"]) == inner_ro
    finally:
        machine.umount(os.path.join(nested, "inner"), machine.MNT_DETACH)


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
        ("rrelatime", "relatime"),
    ],
)
@pytest.mark.needs("mount_setattr")
def test_a_recursive_option_reaches_the_mounts_below(
    container: Container, nested: str, option: str, flag: str
) -> None:
    with_inner_mount(nested)
    try:
        container.bundle.add_mount("/m", "none", nested, "rbind", option)
        rows = {row["point"]: row["options"] for row in mounts_of(container)}
        assert flag in rows["/m"]
        assert flag in rows["/m/inner"]
    finally:
        machine.umount(os.path.join(nested, "inner"), machine.MNT_DETACH)


@pytest.mark.parametrize(
    ("option", "flag"),
    [("rrw", "ro"), ("rsuid", "nosuid"), ("rdev", "nodev"), ("rexec", "noexec")],
)
@pytest.mark.needs("mount_setattr")
def test_a_recursive_opposite_clears_the_flag_below(
    container: Container, nested: str, option: str, flag: str
) -> None:
    machine.mount("inner", os.path.join(nested, "inner"), "tmpfs", 1 | 2 | 4 | 8)
    try:
        container.bundle.add_mount("/m", "none", nested, "rbind", option)
        rows = {row["point"]: row["options"] for row in mounts_of(container)}
        assert flag not in rows["/m/inner"]
    finally:
        machine.umount(os.path.join(nested, "inner"), machine.MNT_DETACH)


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("shared", "shared"),
        ("rshared", "shared"),
        ("private", None),
        ("rprivate", None),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ],
)
def test_the_propagation_of_a_mount_is_as_configured(
    container: Container, option: str, field: str | None
) -> None:
    bound(container, "rbind", option)
    fields = mount_on(container, "/m")["fields"]
    assert (field in fields) if field else fields == []


@pytest.mark.parametrize("option", ["slave", "rslave"])
def test_a_slave_mount_sees_what_is_mounted_on_the_host_later(
    container: Container, nested: str, option: str
) -> None:
    machine.mount(nested, nested, "", 4096)
    machine.mount("none", nested, "", machine.MS_SHARED)
    try:
        container.linux["rootfsPropagation"] = "rslave"
        container.bundle.add_mount("/m", "none", nested, "rbind", option)
        wait = "while [ ! -e /m/inner/file ]; do usleep 5000; done"
        container.launch(f"echo > /ready; {wait}; echo yes > /seen")
        container.wait_file("/ready")
        with_inner_mount(nested)
        assert container.wait_file("/seen") == "yes\n"
    finally:
        detach_below(nested)


def test_a_shared_mount_shows_the_containers_mounts_to_the_host(
    container: Container, nested: str
) -> None:
    machine.mount(nested, nested, "", 4096)
    machine.mount("none", nested, "", machine.MS_SHARED)
    try:
        for name in ("bounding", "effective", "permitted"):
            container.process["capabilities"][name].append("CAP_SYS_ADMIN")
        container.linux["rootfsPropagation"] = "rshared"
        container.bundle.add_mount("/m", "none", nested, "rbind", "rshared")
        container.launch("mount -t tmpfs inside /m/inner && echo > /ready; sleep 100")
        container.wait_file("/ready")
        points = [row[0][4] for row in machine.mountinfo()]
        assert nested + "/inner" in points
    finally:
        detach_below(nested)


def test_several_propagation_words_are_applied_in_order(container: Container) -> None:
    bound(container, "rbind", "shared", "slave", "private")
    assert mount_on(container, "/m")["fields"] == []


# the rest -----------------------------------------------------------------------------------------


def test_remount_changes_the_flags_of_an_earlier_mount(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs")
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "remount", "ro")
    assert "ro" in mount_on(container, "/m")["options"]


def test_a_read_only_dev_still_gets_its_devices(container: Container) -> None:
    for entry in container.config["mounts"]:
        if entry["destination"] == "/dev":
            entry["options"].append("ro")
    assert container.run("touch /dev/x 2>/dev/null; echo $?; echo > /dev/null; ls /dev/zero") == (
        "1\n/dev/zero\n"
    )


def test_a_read_only_tmpfs_is_read_only(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "ro")
    assert "Read-only" in container.run("touch /m/file 2>&1; true")


def test_tmpcopyup_fills_the_tmpfs_with_the_images_content(container: Container) -> None:
    container.bundle.put("/m/sub/file", "content\n", 0o640)
    os.symlink("sub/file", os.path.join(container.bundle.rootfs, "m/link"))
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "tmpcopyup")
    assert container.run("cat /m/link; stat -c %a /m/sub/file; rm /m/sub/file") == "content\n640\n"
    assert container.bundle.has("/m/sub/file")


def test_a_tmpfs_keeps_the_mode_of_the_directory_below(container: Container) -> None:
    container.bundle.make_directory("/m", 0o1733)
    container.bundle.add_mount("/m", "tmpfs", "tmpfs")
    assert container.run("stat -c %a /m") == "1733\n"


def test_a_destination_that_is_missing_twice_over_is_made_with_mode_755(
    container: Container,
) -> None:
    container.bundle.add_mount("/new/m", "tmpfs", "tmpfs", "mode=700")
    assert container.run("stat -c %a /new /new/m") == "755\n700\n"


def test_mounts_do_not_show_on_the_host(container: Container) -> None:
    before = machine.mountinfo()
    container.bundle.add_mount("/m", "tmpfs", "tmpfs")
    container.create()
    assert machine.mountinfo() == before


def test_many_mounts_are_no_trouble(container: Container) -> None:
    for number in range(60):
        container.bundle.add_mount(f"/m/{number}", "tmpfs", f"t{number}")
    assert len(mounts_of(container)) >= 67


@pytest.mark.needs("no-selinux")
def test_a_mount_label_without_selinux_is_ignored(container: Container) -> None:
    container.linux["mountLabel"] = "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811"
    assert container.run("echo fine") == "fine\n"


# cgroup file system -------------------------------------------------------------------------------


def test_a_cgroup_mount_shows_the_containers_own_cgroup(container: Container) -> None:
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev")
    script = "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null; true"
    assert "1" in container.run(script).split()


def test_a_read_only_cgroup_mount_cannot_be_written(container: Container) -> None:
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    where = "/sys/fs/cgroup/pids/x" if machine.v1_mountpoint("pids") else "/sys/fs/cgroup/x"
    assert "Read-only" in container.run(f"mkdir {where} 2>&1; true")


@pytest.mark.needs("cgroup1")
def test_a_cgroup_mount_has_every_hierarchy_of_the_host(container: Container) -> None:
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    found = set(container.run("ls /sys/fs/cgroup").split())
    wanted = {os.path.basename(one.mountpoint) for one in machine.hierarchies() if one.version == 1}
    assert wanted <= found


# id-mapped ----------------------------------------------------------------------------------------


@pytest.mark.needs("mount_setattr")
def test_an_id_mapped_bind_shows_mapped_owners(container: Container) -> None:
    source = container.bundle.outside("source")
    path = os.path.join(source, "file")
    with open(path, "w"):
        os.chown(path, 1000, 1000)
    entry = container.bundle.add_mount("/m", "none", source, "bind", "idmap")
    for key in ("uidMappings", "gidMappings"):
        entry[key] = [{"containerID": 1000, "hostID": 2000, "size": 10}]
    assert container.run("stat -c '%u %g' /m/file") == "2000 2000\n"


def test_idmap_without_mappings_and_without_user_namespace_is_refused(
    container: Container,
) -> None:
    bound(container, "bind", "idmap")
    container.refused()
