//! One file per fault that was found in the library: its first line says what went wrong, its test fails if it comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod aliases_with_one_canonical_name;
mod concurrent_idempotency_keys;
mod concurrent_imports;
mod crash_during_autostart;
mod exit_during_an_operation;
mod expiry_changed_at_the_last_moment;
mod failed_boot_after_restore;
mod image_deleted_late;
mod pinned_snapshot_and_deletion;
mod rename_during_an_operation;
mod replaced_parent;
mod replaced_volume_in_use;
mod reused_alias;
mod status_message_after_restore;
mod stop_of_a_paused_container;
mod support;
mod threads_of_a_dropped_host;
mod token_name_that_is_an_id;
mod two_snapshots_of_one_name;
mod undo_and_alias;
mod undone_restore_of_a_failed_container;
