"""Where Debian 12's runc 1.1.5 and crun 1.8.1 differ from what the tests ask, and why.

Each entry is a strict expected failure: when the runtime behaves otherwise, the run says so. A reason that starts with
"sometimes:" is for races and for tables of which a part passes. Keys are test ids without the directory; an id without
parameters stands for all of them, a file for all of its tests.
"""

from __future__ import annotations

_NEWER = [
    "test_idmap.py",
    "test_identity.py",
    "test_newer_features.py",
    "test_notify.py",
    "test_seccomp_enforced.py",
    "test_userns.py",
]
"""Files about properties that are newer than both runtimes, or about what anocir promises beyond the specification."""

_RUNC: list[tuple[str, list[str]]] = [
    (
        "sometimes: who loses a race for an id removes the state of the winner",
        ["test_lifecycle.py::test_two_creates_with_one_id_at_once_make_one_container"],
    ),
    (
        "sometimes: the Go library raises the soft limit of open files",
        ["test_exec.py::test_the_process_object_may_have_limits"],
    ),
    ("sometimes: newer than this runtime, or beyond the specification", _NEWER),
    (
        "sometimes: gives up when a capability cannot be granted (here CAP_SYS_RESOURCE)",
        [
            "test_capabilities.py::test_a_known_capability_that_cannot_be_granted_is_left_out",
        ],
    ),
    (
        "warns and goes on, as the specification allows; anocir refuses names that no kernel knows",
        [
            "test_capabilities.py::test_a_name_that_no_kernel_knows_is_refused",
        ],
    ),
    (
        "older than the property",
        [
            "test_cgroups.py::test_cpu_burst_is_set",
            "test_cgroups.py::test_cpu_idle_is_set",
        ],
    ),
    (
        "does not write kernelTCP any more",
        [
            "test_cgroups.py::test_the_limit_of_tcp_buffers_is_set",
        ],
    ),
    (
        "leaves the parents of a cgroup behind",
        [
            "test_cgroups.py::test_the_parents_that_a_container_made_go_with_it",
            "test_cgroups.py::test_two_containers_below_one_new_parent_do_not_disturb_each_other",
        ],
    ),
    (
        "does not check the device or its access letters",
        [
            "test_devices.py::test_a_device_that_makes_no_sense_is_refused[device2]",
            "test_devices.py::test_a_device_that_makes_no_sense_is_refused[device3]",
            "test_devices.py::test_a_device_that_makes_no_sense_is_refused[device4]",
            "test_devices.py::test_an_access_that_makes_no_sense_is_refused[rw m]",
            "test_devices.py::test_an_access_that_makes_no_sense_is_refused[rwmx]",
        ],
    ),
    (
        "takes any file that is there for the device",
        [
            "test_devices.py::test_a_file_in_the_place_of_a_device_is_an_error",
        ],
    ),
    (
        "sorts the device rules",
        [
            "test_devices.py::test_device_rules_appear_in_the_order_of_the_configuration",
        ],
    ),
    (
        "sometimes: the JSON path in every error is a promise of anocir",
        [
            "test_errors.py::test_a_failing_mount_names_what_and_why",
            "test_errors.py::test_a_missing_value_is_refused_with_its_json_path",
            "test_errors.py::test_a_wrong_value_is_refused_with_its_json_path",
        ],
    ),
    (
        "lets a null character into the hostname",
        [
            "test_errors.py::test_a_null_character_is_refused[hostname]",
        ],
    ),
    (
        "reads the first JSON value and passes over what follows; null is an empty object",
        [
            "test_errors.py::test_text_that_is_not_one_json_object_is_refused[null]",
            "test_errors.py::test_text_that_is_not_one_json_object_is_refused[trailing garbage]",
            "test_errors.py::test_text_that_is_not_one_json_object_is_refused[two objects]",
        ],
    ),
    (
        "exec takes the umask of the container, not of the process object",
        [
            "test_exec.py::test_exec_takes_a_whole_process_object",
        ],
    ),
    (
        "older than execCPUAffinity, and inherits the affinity of its caller",
        [
            "test_exec.py::test_the_final_processors_of_exec_are_set",
            "test_process.py::test_the_callers_affinity_is_not_inherited",
        ],
    ),
    (
        "the Go library raises the soft limit of open files",
        [
            "test_rlimits.py::test_a_limit_that_is_not_configured_is_inherited",
        ],
    ),
    (
        'passes "defaults" to the kernel as data',
        [
            "test_features.py::test_every_listed_mount_option_is_accepted",
            "test_mounts.py::test_an_option_that_every_runtime_must_know_is_taken[defaults]",
        ],
    ),
    (
        "older than time namespaces in the specification",
        [
            "test_features.py::test_every_namespace_is_listed",
            "test_namespaces.py::test_a_namespace_without_path_is_new[time]",
            "test_namespaces.py::test_a_time_namespace_by_path_is_joined",
            "test_namespaces.py::test_a_type_that_is_not_listed_is_the_runtimes[mount]",
            "test_namespaces.py::test_time_offsets_move_the_clocks",
            "test_namespaces.py::test_time_offsets_without_a_new_time_namespace_are_refused",
        ],
    ),
    (
        "older than these fields",
        [
            "test_features.py::test_known_and_supported_seccomp_flags_are_told",
            "test_features.py::test_newer_extensions_are_told",
            "test_seccomp.py::test_a_flag_is_accepted[flags0]",
            "test_seccomp.py::test_a_flag_is_accepted[flags1]",
            "test_seccomp.py::test_a_flag_is_accepted[flags2]",
        ],
    ),
    (
        "runs the poststart hooks when the container is created",
        [
            "test_hooks.py::test_a_failing_poststart_hook_fails_start_and_stops_the_container",
            "test_hooks.py::test_all_hooks_run_in_their_place_and_in_the_listed_order",
            "test_hooks.py::test_poststart_hooks_run_when_the_program_runs",
            "test_hooks.py::test_the_state_given_to_a_hook_has_the_status_of_its_place[poststart-statuses3]",
        ],
    ),
    (
        "a failing poststop hook makes delete fail",
        [
            "test_hooks.py::test_a_failing_poststop_hook_is_a_warning_and_the_others_still_run",
        ],
    ),
    (
        "start does not hear of what fails after it (the error is in the container's stderr)",
        [
            "test_hooks.py::test_a_failing_start_container_hook_fails_start_and_stops_the_container",
            "test_lifecycle.py::test_start_reports_a_program_that_is_not_executable_format",
            "test_lifecycle.py::test_start_reports_a_script_whose_interpreter_is_missing",
            "test_process.py::test_an_argument_that_the_kernel_refuses_is_one_error",
        ],
    ),
    (
        "passes its own environment to a hook without env",
        [
            "test_hooks.py::test_a_hook_inside_without_env_gets_nothing_of_the_callers",
        ],
    ),
    (
        "says creating where the specification has created",
        [
            "test_hooks.py::test_the_state_given_to_a_hook_has_the_status_of_its_place[createContainer-statuses2]",
            "test_hooks.py::test_the_state_given_to_a_hook_has_the_status_of_its_place[createRuntime-statuses1]",
            "test_hooks.py::test_the_state_given_to_a_hook_has_the_status_of_its_place[prestart-statuses0]",
        ],
    ),
    (
        "takes any ociVersion",
        [
            "test_lifecycle.py::test_an_oci_version_that_is_not_of_the_first_major_is_refused",
        ],
    ),
    (
        "refuses a config without process at create",
        [
            "test_lifecycle.py::test_create_without_process_is_accepted_and_start_is_an_error",
        ],
    ),
    (
        "deletes a created container without --force",
        [
            "test_lifecycle.py::test_delete_of_a_created_container_is_refused_without_effect",
        ],
    ),
    (
        "kills only the first process of a container without pid namespace",
        [
            "test_lifecycle.py::test_kill_kill_ends_every_process_of_a_container_without_a_pid_namespace",
        ],
    ),
    (
        "takes a label or profile without the security module for an error",
        [
            "test_mounts.py::test_a_mount_label_without_selinux_is_ignored",
            "test_process.py::test_an_apparmor_profile_without_apparmor_is_ignored",
        ],
    ),
    (
        "older than id-mapped mounts",
        [
            "test_mounts.py::test_an_id_mapped_bind_shows_mapped_owners",
            "test_mounts.py::test_idmap_without_mappings_and_without_user_namespace_is_refused",
        ],
    ),
    (
        "sets the mode of the directory below a tmpfs over mode=",
        [
            "test_mounts.py::test_file_system_options_are_passed_as_data",
        ],
    ),
    (
        "leaves its mounts in the host's mount namespace",
        [
            "test_namespaces.py::test_a_container_without_any_namespace_runs_and_leaves_no_mount",
        ],
    ),
    (
        "wants id maps for a user namespace that exists",
        [
            "test_namespaces.py::test_a_user_namespace_by_path_is_joined",
        ],
    ),
    (
        "older than netDevices, ignores them",
        [
            "test_namespaces.py::test_network_devices_without_a_network_namespace_are_refused",
        ],
    ),
    (
        "older than domainname",
        [
            "test_namespaces.py::test_the_domainname_is_set",
        ],
    ),
    (
        "takes relative paths",
        [
            "test_paths.py::test_a_relative_path_is_refused",
        ],
    ),
    (
        "needs /proc in the container",
        [
            "test_process.py::test_a_container_can_run_a_static_program_without_anything_else",
        ],
    ),
    (
        "older than scheduler and ioPriority, ignores them",
        [
            "test_process.py::test_a_scheduler_that_makes_no_sense_is_refused",
            "test_process.py::test_the_deadline_scheduler_takes_its_three_times",
            "test_process.py::test_the_io_priority_is_set",
            "test_process.py::test_the_program_does_not_inherit_the_callers_nice_value",
            "test_process.py::test_the_reset_on_fork_flag_reaches_the_kernel",
            "test_process.py::test_the_scheduler_is_set",
        ],
    ),
    (
        "takes ids up to 2147483647 only",
        [
            "test_process.py::test_large_ids_are_taken",
        ],
    ),
    (
        "passes on the signal mask of its caller",
        [
            "test_process.py::test_no_signal_is_ignored_or_blocked",
        ],
    ),
    (
        "makes directories with the umask of its caller",
        [
            "test_process.py::test_the_callers_umask_does_not_change_modes_of_what_the_runtime_makes",
        ],
    ),
    (
        "older than personality, ignores it",
        [
            "test_process.py::test_the_personality_is_set[LINUX32-00000008]",
        ],
    ),
    (
        "sets the limits before it is done itself",
        [
            "test_rlimits.py::test_a_small_limit_does_not_hinder_the_runtime_itself",
        ],
    ),
    (
        "changes the propagation before the root, and refuses a link as root",
        [
            "test_root.py::test_an_unbindable_root_cannot_be_bound",
            "test_root.py::test_in_a_shared_root_a_bind_of_it_sees_later_mounts",
            "test_root.py::test_the_path_may_be_a_symbolic_link",
            "test_root.py::test_the_propagation_of_the_root_is_as_configured[rshared-shared]",
            "test_root.py::test_the_propagation_of_the_root_is_as_configured[shared-shared]",
            "test_root.py::test_the_propagation_of_the_root_is_as_configured[unbindable-unbindable]",
        ],
    ),
    (
        "calls getcwd after the filter is on",
        [
            "test_seccomp.py::test_a_profile_may_refuse_getcwd",
        ],
    ),
    (
        "takes a profile without defaultAction and a rule without names",
        [
            "test_seccomp.py::test_a_profile_that_makes_no_sense_is_refused[seccomp6]",
            "test_seccomp.py::test_a_profile_that_makes_no_sense_is_refused[seccomp7]",
        ],
    ),
    (
        "does not check listenerMetadata",
        [
            "test_seccomp.py::test_listener_metadata_without_a_path_is_refused",
        ],
    ),
]

_CRUN: list[tuple[str, list[str]]] = [
    (
        "sometimes: dies of SIGPIPE when a hook ends without reading its stdin",
        ["test_hooks.py::test_a_failing_poststop_hook_is_a_warning_and_the_others_still_run"],
    ),
    ("sometimes: newer than this runtime, or beyond the specification", _NEWER),
    (
        "sometimes: gives up when a capability cannot be granted (here CAP_SYS_RESOURCE)",
        [
            "test_capabilities.py::test_a_known_capability_that_cannot_be_granted_is_left_out",
        ],
    ),
    (
        "goes on, as the specification allows; anocir refuses names that no kernel knows",
        [
            "test_capabilities.py::test_a_name_that_no_kernel_knows_is_refused",
        ],
    ),
    (
        "waits for ever in a frozen cgroup",
        [
            "test_cgroups.py::test_a_frozen_cgroup_is_refused_or_thawed_but_never_waited_for",
        ],
    ),
    (
        "leaves the cgroup of a refused container behind",
        [
            "test_cgroups.py::test_a_huge_page_size_that_does_not_exist_is_refused",
            "test_cgroups.py::test_a_leaf_weight_that_the_kernel_does_not_know_is_an_error",
            "test_cgroups.py::test_a_processor_that_does_not_exist_is_refused",
            "test_cgroups.py::test_a_refused_resource_leaves_no_cgroup",
            "test_cgroups.py::test_a_weight_is_set_or_an_error_but_never_dropped",
        ],
    ),
    (
        "does not check the value",
        [
            "test_cgroups.py::test_a_memory_limit_that_makes_no_sense_is_refused[-2]",
            "test_cgroups.py::test_a_memory_limit_that_makes_no_sense_is_refused[64m]",
            "test_cgroups.py::test_a_memory_limit_that_makes_no_sense_is_refused[True]",
            "test_cgroups.py::test_unified_values_are_an_error_with_version_one",
            "test_devices.py::test_a_device_that_makes_no_sense_is_refused[device0]",
            "test_devices.py::test_a_device_that_makes_no_sense_is_refused[device2]",
            "test_devices.py::test_a_device_that_makes_no_sense_is_refused[device5]",
            "test_devices.py::test_an_access_that_makes_no_sense_is_refused",
            "test_hooks.py::test_a_hook_that_makes_no_sense_is_refused[hook2]",
            "test_hooks.py::test_a_hook_that_makes_no_sense_is_refused[hook4]",
        ],
    ),
    (
        "follows .. out of the hierarchy",
        [
            "test_cgroups.py::test_a_path_cannot_climb_out[../escape]",
            "test_cgroups.py::test_a_path_cannot_climb_out[/a/../../b]",
        ],
    ),
    (
        "older than the property",
        [
            "test_cgroups.py::test_cpu_burst_is_set",
        ],
    ),
    (
        "writes the number to the file as it is: -1 and 0 have no meaning of their own",
        [
            "test_cgroups.py::test_cpu_quota_and_period_are_set[-1-200000]",
            "test_cgroups.py::test_the_limit_of_tasks_is_set[-1-max]",
            "test_cgroups.py::test_zeros_mean_unset",
        ],
    ),
    (
        "has no events command",
        [
            "test_cgroups.py::test_events_with_stats_tells_what_is_used",
        ],
    ),
    (
        "leaves the parents of a cgroup behind",
        [
            "test_cgroups.py::test_the_parents_that_a_container_made_go_with_it",
            "test_cgroups.py::test_two_containers_below_one_new_parent_do_not_disturb_each_other",
        ],
    ),
    (
        "updates a stopped container without an error",
        [
            "test_cgroups.py::test_update_of_a_stopped_or_unknown_container_is_an_error",
        ],
    ),
    (
        "parses options as GNU programs do, not as runc",
        [
            "test_cli.py::test_a_long_option_may_have_one_dash",
            "test_cli.py::test_a_switch_is_taken_in_every_form[--force=true]",
            "test_cli.py::test_a_value_is_taken_in_every_form[-b={}]",
            "test_cli.py::test_help_is_on_stdout_and_names_the_commands[-h]",
            "test_cli.py::test_options_may_follow_the_id",
            "test_cli.py::test_options_that_engines_may_send_are_taken[--systemd-cgroup=false]",
        ],
    ),
    (
        "has other texts and exit codes",
        [
            "test_cli.py::test_a_missing_container_does_not_exist",
            "test_cli.py::test_an_unknown_signal_is_named",
            "test_cli.py::test_list_shows_the_containers_of_this_root",
            "test_cli.py::test_starting_after_the_end_says_what_engines_look_for",
            "test_cli.py::test_starting_twice_says_what_engines_look_for",
            "test_exec.py::test_exec_in_a_paused_container_is_255_unless_it_is_to_be_ignored",
            "test_exec.py::test_exec_in_a_stopped_container_is_255",
            "test_exec.py::test_exec_in_an_unknown_container_is_255",
            "test_hooks.py::test_a_hook_that_does_not_exist_is_an_error",
            "test_hooks.py::test_the_error_of_a_hook_has_what_it_wrote_to_stderr",
            "test_lifecycle.py::test_a_directory_or_a_plain_file_as_program_is_permission_denied[/etc]",
            "test_lifecycle.py::test_delete_of_an_unknown_container_is_an_error",
            "test_lifecycle.py::test_kill_of_a_stopped_container_is_an_error_that_callers_understand",
            "test_lifecycle.py::test_kill_with_an_unknown_signal_is_an_error",
        ],
    ),
    (
        "takes ids with spaces and the like",
        [
            "test_cli.py::test_an_id_that_is_not_safe_is_refused[*]",
            "test_cli.py::test_an_id_that_is_not_safe_is_refused[\\xfcn\\xef]",
            "test_cli.py::test_an_id_that_is_not_safe_is_refused[a b]",
            "test_cli.py::test_an_id_that_is_not_safe_is_refused[a:b]",
            "test_cli.py::test_an_id_that_is_not_safe_is_refused[a\\nb]",
        ],
    ),
    (
        "delete removes a directory beside its root",
        [
            "test_cli.py::test_an_unsafe_id_is_an_error_for_every_command[delete]",
        ],
    ),
    (
        "writes nothing with --debug",
        [
            "test_cli.py::test_debug_writes_to_the_log",
        ],
    ),
    (
        "has no features command",
        [
            "test_cli.py::test_every_command_has_help[features]",
            "test_cli.py::test_version_makes_no_state_directory",
            "test_features.py::test_capabilities_are_listed_by_name",
            "test_features.py::test_cgroups_are_told",
            "test_features.py::test_every_hook_is_listed",
            "test_features.py::test_every_listed_mount_option_is_accepted",
            "test_features.py::test_every_namespace_is_listed",
            "test_features.py::test_known_and_supported_seccomp_flags_are_told",
            "test_features.py::test_newer_extensions_are_told",
            "test_features.py::test_rro_is_claimed_only_if_it_works",
            "test_features.py::test_seccomp_is_told_in_full",
            "test_features.py::test_the_versions_are_a_range_of_the_first_major",
            "test_features.py::test_what_is_claimed_of_security_modules_is_a_truth_value",
        ],
    ),
    (
        "takes any file that is there for the device",
        [
            "test_devices.py::test_a_file_in_the_place_of_a_device_is_an_error",
        ],
    ),
    (
        "without rules every device is allowed",
        [
            "test_devices.py::test_without_rules_only_the_default_devices_can_be_used",
        ],
    ),
    (
        "sometimes: the JSON path in every error is a promise of anocir; many wrong types are accepted",
        [
            "test_errors.py::test_a_failing_mount_names_what_and_why",
            "test_errors.py::test_a_missing_value_is_refused_with_its_json_path",
            "test_errors.py::test_a_wrong_value_is_refused_with_its_json_path",
        ],
    ),
    (
        "does not check strings and types of the config",
        [
            "test_errors.py::test_a_null_character_is_refused[hostname]",
            "test_errors.py::test_a_null_character_is_refused[linux/cgroupsPath]",
            "test_errors.py::test_a_null_character_is_refused[mounts/1/destination]",
            "test_errors.py::test_a_null_character_is_refused[process/cwd]",
            "test_errors.py::test_a_refusal_comes_before_the_first_side_effect",
        ],
    ),
    (
        "reads comments",
        [
            "test_errors.py::test_text_that_is_not_one_json_object_is_refused[comment]",
        ],
    ),
    (
        "takes a process object without args",
        [
            "test_exec.py::test_a_broken_process_object_is_an_error",
        ],
    ),
    (
        "has not this option of exec, or another form of it",
        [
            "test_exec.py::test_exec_adds_a_capability",
            "test_exec.py::test_exec_cannot_leave_the_containers_cgroup",
            "test_exec.py::test_exec_into_a_sub_cgroup",
            "test_exec.py::test_exec_takes_additional_groups",
        ],
    ),
    (
        "replaces the environment",
        [
            "test_exec.py::test_exec_adds_variables",
        ],
    ),
    (
        "older than execCPUAffinity, and inherits the affinity of its caller",
        [
            "test_exec.py::test_the_final_processors_of_exec_are_set",
            "test_process.py::test_the_callers_affinity_is_not_inherited",
        ],
    ),
    (
        "a failing poststart hook is a warning",
        [
            "test_hooks.py::test_a_failing_poststart_hook_fails_start_and_stops_the_container",
        ],
    ),
    (
        "start does not hear of what fails after it (the error is in the container's stderr)",
        [
            "test_hooks.py::test_a_failing_start_container_hook_fails_start_and_stops_the_container",
            "test_lifecycle.py::test_start_reports_a_program_that_is_not_executable_format",
            "test_lifecycle.py::test_start_reports_a_script_whose_interpreter_is_missing",
            "test_process.py::test_an_argument_that_the_kernel_refuses_is_one_error",
        ],
    ),
    (
        "sometimes: dies of SIGPIPE when a hook does not read its stdin",
        [
            "test_hooks.py::test_a_hook_that_does_not_read_its_stdin_is_no_trouble",
        ],
    ),
    (
        "passes its own environment to a hook without env",
        [
            "test_hooks.py::test_a_hook_inside_without_env_gets_nothing_of_the_callers",
        ],
    ),
    (
        "sometimes: start does not wait for the program, so the order is a race",
        [
            "test_hooks.py::test_all_hooks_run_in_their_place_and_in_the_listed_order",
        ],
    ),
    (
        "refuses a config without process only when it starts, args never",
        [
            "test_lifecycle.py::test_create_without_process_is_accepted_and_start_is_an_error",
            "test_process.py::test_empty_args_are_refused",
        ],
    ),
    (
        "deletes a created container without --force",
        [
            "test_lifecycle.py::test_delete_of_a_created_container_is_refused_without_effect",
        ],
    ),
    (
        "kills only the first process of a container without pid namespace",
        [
            "test_lifecycle.py::test_kill_kill_ends_every_process_of_a_container_without_a_pid_namespace",
            "test_lifecycle.py::test_run_kills_what_the_program_left_in_a_shared_pid_namespace",
        ],
    ),
    (
        "does not thaw for SIGKILL",
        [
            "test_lifecycle.py::test_kill_reaches_a_paused_container",
        ],
    ),
    (
        "takes an unknown signal name for 0",
        [
            "test_lifecycle.py::test_kill_sends_the_signal_by_name_or_number[term-TERM]",
        ],
    ),
    (
        "has no --keep",
        [
            "test_lifecycle.py::test_run_with_keep_leaves_the_stopped_container",
        ],
    ),
    (
        "pauses and resumes whatever the state",
        [
            "test_lifecycle.py::test_what_does_not_fit_the_state_is_refused_without_effect[pause-paused]",
            "test_lifecycle.py::test_what_does_not_fit_the_state_is_refused_without_effect[resume-created]",
            "test_lifecycle.py::test_what_does_not_fit_the_state_is_refused_without_effect[resume-running]",
        ],
    ),
    (
        "directories under a tmpfs have the sticky bit",
        [
            "test_mounts.py::test_a_destination_that_is_missing_twice_over_is_made_with_mode_755",
            "test_mounts.py::test_a_tmpfs_keeps_the_mode_of_the_directory_below",
        ],
    ),
    (
        "does not know these options, or wins the first of two opposite ones",
        [
            "test_mounts.py::test_a_recursive_option_reaches_the_mounts_below[rnoatime-noatime]",
            "test_mounts.py::test_a_recursive_option_reaches_the_mounts_below[rnodiratime-nodiratime]",
            "test_mounts.py::test_a_recursive_option_reaches_the_mounts_below[rnosymfollow-nosymfollow]",
            "test_mounts.py::test_an_option_that_every_runtime_must_know_is_taken[iversion]",
            "test_mounts.py::test_an_option_that_every_runtime_must_know_is_taken[loud]",
            "test_mounts.py::test_an_option_that_every_runtime_must_know_is_taken[noiversion]",
            "test_mounts.py::test_an_option_that_every_runtime_must_know_is_taken[silent]",
            "test_mounts.py::test_nosymfollow_is_enforced",
            "test_mounts.py::test_the_last_of_two_opposite_options_wins",
        ],
    ),
    (
        "applies only one propagation word, and resets it",
        [
            "test_mounts.py::test_several_propagation_words_are_applied_in_order",
            "test_mounts.py::test_the_propagation_of_a_mount_is_as_configured[rshared-shared]",
            "test_mounts.py::test_the_propagation_of_a_mount_is_as_configured[runbindable-unbindable]",
            "test_mounts.py::test_the_propagation_of_a_mount_is_as_configured[shared-shared]",
            "test_mounts.py::test_the_propagation_of_a_mount_is_as_configured[unbindable-unbindable]",
            "test_root.py::test_an_unknown_propagation_is_refused",
        ],
    ),
    (
        "leaves its mounts in the host's mount namespace",
        [
            "test_namespaces.py::test_a_container_without_any_namespace_runs_and_leaves_no_mount",
        ],
    ),
    (
        "older than time namespaces in the specification",
        [
            "test_namespaces.py::test_a_namespace_without_path_is_new[time]",
            "test_namespaces.py::test_a_time_namespace_by_path_is_joined",
            "test_namespaces.py::test_time_offsets_move_the_clocks",
            "test_namespaces.py::test_time_offsets_without_a_new_time_namespace_are_refused",
        ],
    ),
    (
        "does not check this",
        [
            "test_namespaces.py::test_a_type_twice_is_refused",
            "test_namespaces.py::test_a_user_namespace_without_both_maps_is_refused",
            "test_namespaces.py::test_network_devices_without_a_network_namespace_are_refused",
            "test_paths.py::test_a_relative_path_is_refused",
            "test_process.py::test_a_relative_working_directory_is_refused",
            "test_process.py::test_an_environment_entry_without_equals_sign_is_refused",
            "test_seccomp.py::test_listener_metadata_without_a_path_is_refused",
            "test_seccomp.py::test_notify_without_a_listener_is_refused",
        ],
    ),
    (
        "drops the flags of the mount below a read-only path",
        [
            "test_paths.py::test_a_readonly_path_keeps_the_flags_of_its_mount",
        ],
    ),
    (
        "older than scheduler and ioPriority, ignores them",
        [
            "test_process.py::test_a_scheduler_that_makes_no_sense_is_refused",
            "test_process.py::test_the_deadline_scheduler_takes_its_three_times",
            "test_process.py::test_the_io_priority_is_set",
            "test_process.py::test_the_program_does_not_inherit_the_callers_nice_value",
            "test_process.py::test_the_reset_on_fork_flag_reaches_the_kernel",
            "test_process.py::test_the_scheduler_is_set",
        ],
    ),
    (
        "takes a profile without AppArmor for an error",
        [
            "test_process.py::test_an_apparmor_profile_without_apparmor_is_ignored",
        ],
    ),
    (
        "cannot start with closed standard streams",
        [
            "test_process.py::test_closed_standard_streams_are_no_trouble",
        ],
    ),
    (
        "does not set LISTEN_PID",
        [
            "test_process.py::test_listen_fds_are_passed_for_socket_activation",
        ],
    ),
    (
        "makes directories with the umask of its caller",
        [
            "test_process.py::test_the_callers_umask_does_not_change_modes_of_what_the_runtime_makes",
        ],
    ),
    (
        "sets the limits before it is done itself",
        [
            "test_rlimits.py::test_a_small_limit_does_not_hinder_the_runtime_itself",
        ],
    ),
    (
        "exec does not apply the limits of the config",
        [
            "test_rlimits.py::test_limits_hold_for_exec_as_well",
        ],
    ),
    (
        "ignores a console socket without a terminal",
        [
            "test_terminal.py::test_a_console_socket_without_a_terminal_is_refused",
        ],
    ),
    (
        "does not pass the size of the terminal on",
        [
            "test_terminal.py::test_a_resize_is_passed_on",
            "test_terminal.py::test_the_program_finds_the_size_of_the_callers_terminal",
        ],
    ),
    (
        "sometimes: loses the last output of a short program",
        [
            "test_terminal.py::test_the_program_gets_a_terminal_of_its_own_and_not_the_callers",
        ],
    ),
]


def _table(rows: list[tuple[str, list[str]]]) -> dict[str, str]:
    return {key: reason for reason, keys in rows for key in keys}


KNOWN_DIFFERENCES: dict[str, dict[str, str]] = {"runc": _table(_RUNC), "crun": _table(_CRUN)}
