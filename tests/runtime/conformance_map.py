"""The 58 files of the conformance suite (runtime-tools, validation/) and the tests here that cover the same.

The suite cannot see much of what its names promise: seccomp is never enforced there and seven of its files cannot fail.
Each name has at least one test of ours that turns red when the feature is broken; test_conformance_map.py checks the ids.
"""

from __future__ import annotations

CONFORMANCE: dict[str, list[str]] = {
    "config_updates_without_affect": [
        "test_lifecycle.py::test_changing_config_json_after_create_has_no_effect",
        "test_lifecycle.py::test_a_container_can_be_deleted_after_its_bundle_is_gone",
    ],
    "create": [
        "test_lifecycle.py::test_create_without_an_id_is_an_error",
        "test_lifecycle.py::test_create_with_an_id_in_use_fails_and_leaves_the_first_container_alone",
        "test_lifecycle.py::test_create_does_not_run_the_program",
    ],
    "default": [
        "test_mounts.py::test_the_default_file_systems_have_their_types",
        "test_devices.py::test_a_default_device_is_there",
        "test_devices.py::test_a_default_link_is_there",
        "test_process.py::test_args_reach_the_program_unchanged",
    ],
    "delete": [
        "test_lifecycle.py::test_delete_without_an_id_is_an_error",
        "test_lifecycle.py::test_delete_of_a_created_container_is_refused_without_effect",
        "test_lifecycle.py::test_delete_of_a_running_container_is_refused_without_effect",
        "test_lifecycle.py::test_delete_of_a_stopped_container_frees_the_id",
    ],
    "delete_only_create_resources": [
        "test_cgroups.py::test_delete_leaves_a_cgroup_that_it_did_not_make",
        "test_cgroups.py::test_a_cgroup_with_a_stranger_in_it_is_left_as_it_is",
    ],
    "delete_resources": [
        "test_cgroups.py::test_delete_removes_the_cgroup_at_once",
        "test_cgroups.py::test_the_limit_of_tasks_is_set",
    ],
    "hooks": ["test_hooks.py::test_all_hooks_run_in_their_place_and_in_the_listed_order"],
    "hooks_stdin": [
        "test_hooks.py::test_hooks_get_the_state_with_id_bundle_and_annotations",
        "test_hooks.py::test_the_state_given_to_a_hook_has_the_status_of_its_place",
        "test_hooks.py::test_the_pid_given_to_a_hook_of_the_host_is_the_containers",
        "test_hooks.py::test_a_hook_that_does_not_read_its_stdin_is_no_trouble",
    ],
    "hostname": [
        "test_namespaces.py::test_the_hostname_is_set_and_the_host_keeps_its_own",
        "test_namespaces.py::test_an_empty_hostname_is_accepted",
    ],
    "kill": [
        "test_lifecycle.py::test_kill_without_an_id_is_an_error",
        "test_lifecycle.py::test_kill_of_an_unknown_container_is_an_error",
        "test_lifecycle.py::test_kill_stops_a_created_container",
        "test_lifecycle.py::test_kill_of_a_stopped_container_is_an_error_that_callers_understand",
    ],
    "kill_no_effect": ["test_state.py::test_state_of_a_stopped_container_stays_the_same"],
    "killsig": ["test_lifecycle.py::test_kill_sends_the_signal_by_name_or_number"],
    "linux_cgroups_blkio": [
        "test_cgroups.py::test_a_rate_of_a_block_device_is_limited",
        "test_cgroups.py::test_a_weight_is_set_or_an_error_but_never_dropped",
        "test_cgroups.py::test_a_leaf_weight_that_the_kernel_does_not_know_is_an_error",
    ],
    "linux_cgroups_cpus": [
        "test_cgroups.py::test_cpu_shares_are_set",
        "test_cgroups.py::test_cpu_quota_and_period_are_set",
        "test_cgroups.py::test_the_processors_are_set",
        "test_cgroups.py::test_without_processors_a_cpuset_has_those_of_its_parent",
    ],
    "linux_cgroups_devices": [
        "test_devices.py::test_device_rules_appear_in_the_order_of_the_configuration",
        "test_devices.py::test_a_device_that_is_not_allowed_cannot_be_opened",
        "test_devices.py::test_a_later_rule_takes_back_what_an_earlier_one_gave",
    ],
    "linux_cgroups_hugetlb": [
        "test_cgroups.py::test_the_limit_of_huge_pages_is_set",
        "test_cgroups.py::test_a_huge_page_size_that_does_not_exist_is_refused",
    ],
    "linux_cgroups_memory": [
        "test_cgroups.py::test_the_memory_limit_is_set",
        "test_cgroups.py::test_the_memory_reservation_is_set",
        "test_cgroups.py::test_the_swap_limit_is_memory_and_swap_together",
        "test_cgroups.py::test_swappiness_is_set",
        "test_cgroups.py::test_the_oom_killer_is_switched",
        "test_cgroups.py::test_the_limit_of_tcp_buffers_is_set",
        "test_cgroups.py::test_the_memory_limit_is_enforced",
    ],
    "linux_cgroups_network": [
        "test_cgroups.py::test_the_class_of_network_packets_is_set",
        "test_cgroups.py::test_the_priorities_of_interfaces_are_set",
    ],
    "linux_cgroups_pids": [
        "test_cgroups.py::test_the_limit_of_tasks_is_set",
        "test_cgroups.py::test_the_limit_of_tasks_is_enforced",
    ],
    "linux_cgroups_relative_blkio": [
        "test_cgroups.py::test_a_relative_path_ends_the_same_way_in_every_hierarchy",
        "test_cgroups.py::test_a_rate_of_a_block_device_is_limited",
    ],
    "linux_cgroups_relative_cpus": [
        "test_cgroups.py::test_a_relative_path_has_its_limits",
        "test_cgroups.py::test_a_relative_path_ends_the_same_way_in_every_hierarchy",
    ],
    "linux_cgroups_relative_devices": [
        "test_cgroups.py::test_a_relative_path_ends_the_same_way_in_every_hierarchy",
        "test_devices.py::test_device_rules_appear_in_the_order_of_the_configuration",
    ],
    "linux_cgroups_relative_hugetlb": [
        "test_cgroups.py::test_a_relative_path_ends_the_same_way_in_every_hierarchy",
        "test_cgroups.py::test_the_limit_of_huge_pages_is_set",
    ],
    "linux_cgroups_relative_memory": ["test_cgroups.py::test_a_relative_path_has_its_limits"],
    "linux_cgroups_relative_network": [
        "test_cgroups.py::test_a_relative_path_ends_the_same_way_in_every_hierarchy",
        "test_cgroups.py::test_the_class_of_network_packets_is_set",
    ],
    "linux_cgroups_relative_pids": ["test_cgroups.py::test_a_relative_path_has_its_limits"],
    "linux_devices": [
        "test_devices.py::test_listed_devices_are_made_with_type_number_mode_and_owner",
        "test_devices.py::test_numbers_given_with_a_fifo_are_ignored",
    ],
    "linux_masked_paths": [
        "test_paths.py::test_a_masked_file_reads_as_empty",
        "test_paths.py::test_a_masked_directory_is_empty_and_cannot_be_written",
        "test_paths.py::test_paths_below_a_masked_one_are_no_error",
        "test_paths.py::test_a_special_file_is_covered_without_being_opened",
    ],
    "linux_mount_label": ["test_mounts.py::test_a_mount_label_without_selinux_is_ignored"],
    "linux_ns_itype": [
        "test_namespaces.py::test_a_type_that_is_not_listed_is_the_runtimes",
        "test_namespaces.py::test_a_container_without_any_namespace_runs_and_leaves_no_mount",
    ],
    "linux_ns_nopath": [
        "test_namespaces.py::test_a_namespace_without_path_is_new",
        "test_namespaces.py::test_all_namespaces_are_new_at_once",
    ],
    "linux_ns_path": [
        "test_namespaces.py::test_a_namespace_by_path_is_joined",
        "test_namespaces.py::test_a_pid_namespace_by_path_is_joined",
    ],
    "linux_ns_path_type": ["test_namespaces.py::test_a_path_of_another_type_is_refused"],
    "linux_process_apparmor_profile": [
        "test_process.py::test_an_apparmor_profile_without_apparmor_is_ignored",
        "test_process.py::test_an_apparmor_profile_confines_the_program",
    ],
    "linux_readonly_paths": [
        "test_paths.py::test_a_readonly_path_can_be_read_and_not_written",
        "test_paths.py::test_a_special_file_is_covered_without_being_opened",
    ],
    "linux_rootfs_propagation": [
        "test_root.py::test_the_propagation_of_the_root_is_as_configured",
        "test_root.py::test_in_a_shared_root_a_bind_of_it_sees_later_mounts",
        "test_root.py::test_an_unbindable_root_cannot_be_bound",
    ],
    "linux_seccomp": [
        "test_seccomp.py::test_a_call_with_errno_fails_and_the_others_work",
        "test_seccomp.py::test_a_profile_may_refuse_getcwd",
        "test_seccomp.py::test_an_engines_profile_is_enforced",
    ],
    "linux_sysctl": ["test_sysctl.py::test_a_namespaced_parameter_is_set"],
    "linux_uid_mappings": [
        "test_namespaces.py::test_a_user_namespace_has_the_configured_maps",
        "test_namespaces.py::test_devices_in_a_user_namespace_work",
    ],
    "misc_props": [
        "test_lifecycle.py::test_an_unknown_annotation_with_an_empty_value_is_accepted",
        "test_lifecycle.py::test_unknown_properties_are_ignored",
        "test_lifecycle.py::test_an_oci_version_that_is_not_of_the_first_major_is_refused",
    ],
    "mounts": [
        "test_mounts.py::test_mounts_appear_in_the_order_of_the_configuration",
        "test_mount_flags.py::test_an_unknown_option_of_a_bind_mount_is_refused",
        "test_mounts.py::test_the_propagation_of_a_mount_is_as_configured",
    ],
    "pidfile": ["test_cli.py::test_the_pid_file_holds_digits_only"],
    "poststart": [
        "test_hooks.py::test_poststart_hooks_run_when_the_program_runs",
        "test_hooks.py::test_start_waits_for_the_poststart_hooks",
    ],
    "poststart_fail": [
        "test_hooks.py::test_a_failing_poststart_hook_fails_start_and_stops_the_container"
    ],
    "poststop": ["test_hooks.py::test_poststop_hooks_run_when_delete_has_cleared_away"],
    "poststop_fail": [
        "test_hooks.py::test_a_failing_poststop_hook_is_a_warning_and_the_others_still_run"
    ],
    "prestart": ["test_hooks.py::test_all_hooks_run_in_their_place_and_in_the_listed_order"],
    "prestart_fail": [
        "test_hooks.py::test_a_failing_hook_of_create_fails_create_and_leaves_nothing"
    ],
    "process": [
        "test_process.py::test_the_working_directory_is_set",
        "test_process.py::test_the_environment_is_exactly_the_configured_one",
    ],
    "process_capabilities": ["test_capabilities.py::test_every_set_is_exactly_as_configured"],
    "process_capabilities_fail": [
        "test_capabilities.py::test_a_name_that_no_kernel_knows_is_refused"
    ],
    "process_oom_score_adj": ["test_process.py::test_the_oom_score_adjustment_is_set"],
    "process_rlimits": [
        "test_rlimits.py::test_many_limits_are_set_at_once",
        "test_rlimits.py::test_a_limit_is_set_soft_and_hard",
    ],
    "process_rlimits_fail": ["test_rlimits.py::test_an_unknown_limit_is_refused"],
    "process_user": [
        "test_process.py::test_uid_gid_and_additional_gids_are_exactly_as_configured",
        "test_process.py::test_the_umask_is_set",
        "test_capabilities.py::test_all_five_sets_may_hold_the_same_names",
    ],
    "root_readonly_true": ["test_root.py::test_readonly_is_as_configured"],
    "start": [
        "test_lifecycle.py::test_start_without_an_id_is_an_error",
        "test_lifecycle.py::test_start_of_an_unknown_container_is_an_error",
        "test_lifecycle.py::test_start_of_a_stopped_container_fails_and_runs_nothing",
        "test_lifecycle.py::test_create_without_process_is_accepted_and_start_is_an_error",
    ],
    "state": [
        "test_state.py::test_state_without_an_id_is_an_error",
        "test_state.py::test_state_of_an_unknown_container_is_an_error",
        "test_state.py::test_state_of_a_created_container_has_every_required_property",
    ],
}
