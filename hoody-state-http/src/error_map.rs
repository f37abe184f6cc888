//! The one place where errors become statuses.
//!
//! `code` is our stable word, lower case. `error` is the phrase of the status, but for the codes that the wire contract
//! marks: those carry the published machine word. The published clients show `message` and give `code` to programs.
//!
//! A code is looked up first; one that is not listed goes by its kind. What is our fault (500) shows no inner message:
//! that goes to the log.

use axum::http::StatusCode;
use hoody_state::{Error, Kind};

/// What an error looks like outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The status.
    pub status: StatusCode,
    /// The published machine word; `None`: the status phrase.
    pub word: Option<&'static str>,
    /// The stable word.
    pub code: &'static str,
    /// The message to show.
    pub message: String,
}

/// A code that the server can give.
#[derive(Debug)]
pub struct Row {
    /// The stable word.
    pub code: &'static str,
    /// Its status.
    pub status: u16,
    /// The published machine word.
    pub word: Option<&'static str>,
    /// One line for the document.
    pub meaning: &'static str,
}

const fn row(code: &'static str, status: u16, meaning: &'static str) -> Row {
    Row { code, status, word: None, meaning }
}

const fn marked(code: &'static str, status: u16, word: &'static str, meaning: &'static str) -> Row {
    Row { code, status, word: Some(word), meaning }
}

/// Every code, by status. The OpenAPI document lists them from here.
pub const CODES: &[Row] = &[
    marked("validation_error", 400, "VALIDATION_ERROR", "a field is missing, of the wrong type or out of range; `data.field` or the message names it"),
    row("invalid_id_format", 400, "no id: 24 (operations: 32) lower-case hex digits"),
    row("invalid_page", 400, "page, limit, sort_by or sort_order out of range"),
    row("invalid_alias_format", 400, "no project alias"),
    row("invalid_color_format", 400, "no colour"),
    row("invalid_quota_value", 400, "no number of containers"),
    row("invalid_container_name", 400, "no container name"),
    row("invalid_alias", 400, "no snapshot alias"),
    row("invalid_expiry", 400, "an expiry that is not 1 to 3650 whole days, or a time that is over"),
    row("invalid_image_name", 400, "no image name"),
    row("invalid_path", 400, "no path that can be shared"),
    row("self_share", 400, "a container cannot share with itself"),
    marked("not_a_receiver", 400, "VALIDATION_ERROR", "the share is not for this container"),
    row("reserved_image_name", 400, "a word of the API cannot name an image"),
    row("image_format", 400, "the upload is no tar that this server reads"),
    row("image_corrupt", 400, "the upload is damaged or broke off"),
    row("image_path_unsafe", 400, "an entry would leave the image"),
    row("image_link_unsafe", 400, "a link would leave the image"),
    row("image_entry_conflict", 400, "two entries contradict each other"),
    row("image_id_range", 400, "an owner outside the range of ids"),
    row("image_xattr", 400, "an extended attribute that cannot be kept"),
    row("image_no_root", 400, "the upload holds no root file system"),
    row("invalid_cwd", 400, "no working directory"),
    row("working_directory_not_found", 400, "the container has no such directory for the command to run in"),
    row("invalid_idempotency_key", 400, "no idempotency key: 1 to 255 visible ASCII characters"),
    row("peer_is_self", 400, "the address is this server's own"),
    row("project_container_limit", 400, "the project has as many containers as it may have"),
    row("server_container_limit", 400, "the server has as many containers as it may have"),
    marked("container_snapshot_limit", 400, "CONTAINER_SNAPSHOT_LIMIT", "the container has as many snapshots as it may have"),
    row("missing_token", 401, "no token"),
    row("invalid_token", 401, "a token that is not known"),
    row("invalid_credentials", 401, "there is no log-in by user name and password"),
    row("insufficient_permissions", 403, "the token may not do this"),
    row("host_network_denied", 403, "the token may not make containers that use the host's network, or the server has none"),
    row("route_not_found", 404, "no such route"),
    row("project_not_found", 404, "no such project, or not to be seen with this token"),
    row("container_not_found", 404, "no such container, or not to be seen with this token"),
    row("source_container_not_found", 404, "no such container to copy, or to bring a copy up to"),
    row("peer_not_found", 404, "no such peer"),
    row("snapshot_not_found", 404, "no such snapshot"),
    row("share_not_found", 404, "no such share, or not to be seen with this token"),
    row("image_not_found", 404, "no such image"),
    row("operation_not_found", 404, "no such operation, or not to be seen with this token"),
    row("event_not_found", 404, "no such event, or not to be seen with this token"),
    row("unknown_server", 404, "no such server"),
    row("environment_variable_not_found", 404, "no such variable"),
    row("method_not_allowed", 405, "the route has no such method"),
    row("request_timeout", 408, "the body did not come in time"),
    row("disk_limit_unsupported", 409, "this pool does not count what containers write, so no disk limit can be set: `GET /pool` says why"),
    row("too_many_nested_volumes", 409, "more subvolumes were made inside the container than a snapshot may hold"),
    row("duplicate_alias", 409, "another project has this alias"),
    row("container_name_in_use", 409, "another container of the project has this name"),
    row("ssh_public_key_in_use", 409, "another container has this key"),
    row("operation_state_conflict", 409, "the state of the container forbids it"),
    row("container_not_running", 409, "the container does not run"),
    row("container_paused", 409, "the container is paused: resume it first"),
    marked("operation_in_progress", 409, "CONTAINER_OPERATION_IN_PROGRESS", "another change of this is under way; try again soon"),
    marked("snapshot_operation_in_progress", 409, "SNAPSHOT_OPERATION_IN_PROGRESS", "another change of the container is under way; try again soon"),
    row("not_a_copy", 409, "the container is no copy: there is nothing to sync it with"),
    row("copy_has_changes", 409, "the copy was changed, and force: false was said"),
    row("id_base_differs", 409, "the two servers give their containers other ids"),
    row("peer_name_in_use", 409, "another peer has this name"),
    row("handover_refused", 409, "a move was called off, or another one came after it"),
    row("handover_taken", 409, "a move cannot be called off any more"),
    row("base_missing", 409, "what an increment is on is not here any more"),
    row("path_too_long", 409, "a path in the container is longer than BTRFS can send"),
    row("too_many_volumes", 409, "the container has more subvolumes inside than can be sent"),
    row("alias_in_use", 409, "another snapshot of the container has this alias"),
    row("snapshot_ambiguous", 409, "the alias of one snapshot is the canonical name of another: say which"),
    row("name_ambiguous", 409, "the id of one thing is the name of another: give the id of the other"),
    row("snapshot_pinned", 409, "the snapshot is pinned: unpin it first"),
    row("databases_shared", 409, "other containers use the databases too: say databases: revert or keep"),
    row("databases_busy", 409, "a database is being written for longer than can be waited for"),
    row("backing_in_use", 409, "a directory of databases is mounted elsewhere on this machine; the message says where and by which process"),
    row("share_already_exists", 409, "this directory is shared with this target already"),
    row("nothing_to_undo", 409, "no restore is left to undo"),
    row("image_exists", 409, "there is an image of this name"),
    row("exec_failed", 409, "the command could not be run: not found, not executable, or the container ended"),
    row("container_task_limit", 409, "the container has as many processes and threads as it may have: nothing can be started in it"),
    row("operation_finished", 409, "the operation has ended: it cannot be cancelled"),
    row("operation_not_cancellable", 409, "the operation is past the point where it could be cancelled"),
    row("operation_cancelled", 409, "somebody cancelled this; it was undone"),
    row("token_not_bound", 409, "a replication token that no server has used yet: the server that it is for adds this one as a peer with it"),
    row("peer_token_in_use", 409, "a replication token that was made for no server in particular was used by one that has a token already"),
    row("idempotency_in_flight", 409, "the first request with this key has not ended yet"),
    row("request_too_large", 413, "the body is larger than its limit"),
    row("image_header_too_large", 413, "an entry of the image has headers that are too large"),
    row("image_too_large", 413, "the image is larger than the pool or its bounds"),
    row("idempotency_key_reused", 422, "the key was used with another request"),
    row("address_limit", 429, "this address has as many connections, or Socket.IO sessions without a token, as one address may have"),
    row("internal", 500, "a bug of ours; the log has more"),
    row("interrupted", 500, "the server ended in the middle; what had begun was undone"),
    row("io", 500, "a system call failed; the log has more"),
    row("share_mount_failed", 500, "a running container could not be reached: restart it"),
    row("catalog_corrupt", 500, "what is stored contradicts itself: run `check`"),
    marked("start_failed", 502, "CONTAINER_HOST_COMMAND_FAILED", "the runtime could not start the container"),
    row("peer_unreachable", 502, "the other server does not answer"),
    row("peer_refused", 502, "the other server does not take the token, or is no server of this version"),
    row("peer_failed", 502, "the other server could not do it; its log says why"),
    row("transfer_cut", 502, "a stream between servers broke off; what is whole stays"),
    row("stream_corrupt", 502, "a stream between servers was damaged; nothing of it was kept"),
    row("stream_refused", 502, "a stream from another server does what no honest one does, or what this version does not know"),
    row("pool_task_limit", 503, "all containers together have as many processes and threads as they may have: nothing can be started"),
    row("too_many_streams", 503, "as many snapshots are being sent to other servers as may be; ask again"),
    row("server_busy", 503, "as many calls are under way as may be, in all or of this caller; try again in a moment"),
    row("too_many_connections", 503, "the server has as many connections as it takes; try again in a moment"),
    row("exec_limit", 503, "as many commands are running as may be, in all or in this project; try again when one has ended"),
    row("upload_limit", 503, "as many images are being uploaded as may be, in all or by this caller; try again when one has ended"),
    row("wait_limit", 503, "as many requests wait for operations as may, in all or of this caller: ask without `Prefer: wait`"),
    row("stream_limit", 503, "as many logs and events are followed as may be, in all, in this project or by this caller"),
    row("session_limit", 503, "as many Socket.IO sessions have not shown a token yet as may be; try again in a moment"),
    row("no_transport", 503, "this host was opened without a way to other servers"),
    row("databases_full", 503, "no more directories of databases can be served: end containers that are not needed"),
    row("databases_unavailable", 503, "the databases' daemon does not run"),
    row("ramdisk_failed", 503, "a RAM disk cannot be mounted"),
    row("runtime_not_found", 503, "there is no container runtime on this host"),
    row("runtime_unusable", 503, "the container runtime does not work"),
    row("not_ready", 503, "the catalog or the pool does not answer"),
    row("pool_read_only", 503, "the kernel made the pool read-only because it could not write to it: `GET /pool` says what to do"),
    marked("freeze_timeout", 504, "CONTAINER_HOST_TIMEOUT", "the container could not be frozen in time; it runs on"),
    marked("kill_timeout", 504, "CONTAINER_HOST_TIMEOUT", "the container's processes did not end in time"),
    row("disk_limit_reached", 507, "the disk limit of the container or of its project is reached"),
    row("pool_full", 507, "not enough space in the pool; nothing was changed"),
];

/// What `error` looks like outside; `on_snapshot`: of a call about snapshots.
#[must_use]
pub fn map(error: &Error, on_snapshot: bool) -> Mapped {
    let code = match error.code() {
        "operation_in_progress" if on_snapshot => "snapshot_operation_in_progress",
        code => code,
    };
    let (status, word) = look_up(code, error.kind());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(code, error = %error.message(), source = ?std::error::Error::source(error), "a request failed");
    }
    Mapped { status, word, code, message: outer_message(error) }
}

/// The status alone.
#[must_use]
pub fn status(error: &Error) -> u16 {
    look_up(error.code(), error.kind()).0
}

fn look_up(code: &str, kind: Kind) -> (u16, Option<&'static str>) {
    CODES.iter().find(|r| r.code == code).map_or_else(|| by_kind(kind), |r| (r.status, r.word))
}

/// After how many seconds it makes sense to try again; `None` when that depends on something else.
#[must_use]
pub fn retry_after(error: &Error) -> Option<u32> {
    const LIMITS: &[&str] = &[
        "address_limit",
        "server_busy",
        "too_many_connections",
        "exec_limit",
        "upload_limit",
        "wait_limit",
        "stream_limit",
        "session_limit",
        "too_many_streams",
    ];
    (error.kind() == Kind::Busy || LIMITS.contains(&error.code())).then_some(1)
}

/// The message to show.
#[must_use]
pub fn outer_message(error: &Error) -> String {
    match error.kind() {
        Kind::Io | Kind::Internal => FAULT.to_owned(),
        Kind::Corrupt if look_up(error.code(), Kind::Corrupt).0 == 500 => FAULT.to_owned(),
        // Of a system call that found no room: it names a file of the host.
        Kind::NoSpace if error.code() == "disk_limit_reached" => LIMIT.to_owned(),
        Kind::NoSpace if std::error::Error::source(error).is_some_and(|s| s.is::<std::io::Error>()) => FULL.to_owned(),
        _ => error.message().to_owned(),
    }
}

const FAULT: &str = "the server failed at this; its log says why";
const LIMIT: &str = "the disk limit of the container or of its project is reached: delete something in it, or raise the limit";
const FULL: &str = "the pool is full: delete snapshots or containers, or grow the pool";

/// The message to show of an error that is known by its code alone: that of an operation that has ended.
#[must_use]
pub fn outer_text(code: &str, message: String) -> String {
    match CODES.iter().find(|r| r.code == code) {
        Some(r) if r.code == "interrupted" => message,
        Some(r) if r.code == "disk_limit_reached" => LIMIT.to_owned(),
        Some(r) if r.status == 507 => FULL.to_owned(),
        Some(r) if r.status != 500 => message,
        _ => FAULT.to_owned(),
    }
}

fn by_kind(kind: Kind) -> (u16, Option<&'static str>) {
    match kind {
        Kind::Invalid => (400, None),
        Kind::Denied => (403, None),
        Kind::NotFound => (404, None),
        Kind::Conflict | Kind::Exists | Kind::Busy | Kind::Cancelled => (409, None),
        Kind::TooLarge => (413, None),
        Kind::KeyReused => (422, None),
        Kind::Unavailable => (503, None),
        Kind::Timeout => (504, Some("CONTAINER_HOST_TIMEOUT")),
        Kind::NoSpace => (507, None),
        _ => (500, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        let status = |kind, code| map(&Error::new(kind, code, "x"), false).status.as_u16();
        for (kind, want) in [
            (Kind::Invalid, 400),
            (Kind::Denied, 403),
            (Kind::NotFound, 404),
            (Kind::Conflict, 409),
            (Kind::Exists, 409),
            (Kind::Busy, 409),
            (Kind::Cancelled, 409),
            (Kind::TooLarge, 413),
            (Kind::KeyReused, 422),
            (Kind::Internal, 500),
            (Kind::Io, 500),
            (Kind::Corrupt, 500),
            (Kind::Unavailable, 503),
            (Kind::Timeout, 504),
            (Kind::NoSpace, 507),
        ] {
            assert_eq!(status(kind, "not_listed"), want, "{kind:?}");
        }
    }

    #[test]
    fn every_listed_code_has_its_status_and_word_and_stands_once() {
        for (i, row) in CODES.iter().enumerate() {
            let mapped = map(&Error::new(Kind::Invalid, row.code, "x"), false);
            assert_eq!((mapped.status.as_u16(), mapped.word, mapped.code), (row.status, row.word, row.code));
            assert!(CODES[..i].iter().all(|r| r.code != row.code && r.status <= row.status), "{}", row.code);
        }
    }

    #[test]
    fn busy_has_another_word_on_snapshots_and_faults_of_ours_say_nothing() {
        let busy = Error::new(Kind::Busy, "operation_in_progress", "x");
        assert_eq!(map(&busy, false).word, Some("CONTAINER_OPERATION_IN_PROGRESS"));
        assert_eq!(map(&busy, true).word, Some("SNAPSHOT_OPERATION_IN_PROGRESS"));
        assert!(!map(&Error::internal("secret path /x"), false).message.contains("secret"));
        let full = Error::io("write /secret", std::io::Error::from_raw_os_error(28));
        assert_eq!((full.kind(), outer_message(&full).contains("secret")), (Kind::NoSpace, false));
        for code in ["io", "internal", "pool_full", "not_listed"] {
            assert!(!outer_text(code, "write /secret".into()).contains("secret"), "{code}");
        }
        assert_eq!(outer_text("start_failed", "no such program".into()), "no such program");
    }
}
