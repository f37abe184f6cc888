//! The error codes: one row for each. Everything else about codes is made from this table.

use super::Kind;
use super::row::{RowOf, answer, codes};

codes! {
    // What the HTTP API answers with, and lists in its document.
    api {
        ValidationError, "validation_error", Invalid, retry: no,
            "A field is missing, has the wrong type or is out of range: correct the field that the message or `data.field` names.";
        InvalidIdFormat, "invalid_id_format", Invalid, retry: no,
            "This is not an id: give 24 lower-case hex digits, or 32 for an operation.";
        InvalidPage, "invalid_page", Invalid, retry: no,
            "One of `page`, `limit`, `sort_by` and `sort_order` is out of range: give a value that the API document lists.";
        InvalidAliasFormat, "invalid_alias_format", Invalid, retry: no,
            "This is not a valid project alias: use the characters and the length that the message names.";
        InvalidColorFormat, "invalid_color_format", Invalid, retry: no,
            "This is not a colour: write it as `#rrggbb`.";
        InvalidQuotaValue, "invalid_quota_value", Invalid, retry: no,
            "This is not a number of containers: give a whole number within the range that the message names.";
        InvalidContainerName, "invalid_container_name", Invalid, retry: no,
            "This is not a valid container name: use the characters and the length that the message names.";
        InvalidAlias, "invalid_alias", Invalid, retry: no,
            "This is not a valid snapshot alias: use the characters and the length that the message names.";
        InvalidExpiry, "invalid_expiry", Invalid, retry: no,
            "The expiry is not between 1 and 3650 whole days, or the time is in the past: give a time in the future.";
        InvalidImageName, "invalid_image_name", Invalid, retry: no,
            "This is not a valid image name: use the characters and the length that the message names.";
        InvalidPath, "invalid_path", Invalid, retry: no,
            "This path cannot be used here: give an absolute path without `..`, empty names and NUL; the message says what else is wrong with it.";
        SelfShare, "self_share", Invalid, retry: no,
            "A container cannot share a directory with itself: name another container.";
        NotAReceiver, "not_a_receiver", Invalid, retry: no,
            "This share is not for this container: name a container that the share is offered to.";
        ReservedImageName, "reserved_image_name", Invalid, retry: no,
            "The API uses this word in its paths, so no image can have it as its name: choose another name.";
        ImageFormat, "image_format", Invalid, retry: no,
            "The upload is not a tar file that this server can read: send a plain tar, or one packed with gzip or zstd.";
        ImageCorrupt, "image_corrupt", Invalid, retry: no,
            "The upload is damaged or ended early: send it again.";
        ImagePathUnsafe, "image_path_unsafe", Invalid, retry: no,
            "An entry of the image has a path that leads out of the image: build the image again without it.";
        ImageLinkUnsafe, "image_link_unsafe", Invalid, retry: no,
            "A link in the image leads out of the image: build the image again without it.";
        ImageEntryConflict, "image_entry_conflict", Invalid, retry: no,
            "Two entries of the image contradict each other, such as a file and a directory of one name: build the image again.";
        ImageIdRange, "image_id_range", Invalid, retry: no,
            "An entry of the image has an owner outside the range of ids that a container has: change its owner.";
        ImageXattr, "image_xattr", Invalid, retry: no,
            "An entry of the image has an extended attribute that cannot be kept: remove the attribute.";
        ImageNoRoot, "image_no_root", Invalid, retry: no,
            "The upload contains no root file system: pack the root directory itself, with `tar -C DIRECTORY -c .`.";
        InvalidCwd, "invalid_cwd", Invalid, retry: no,
            "This is not a valid working directory for a command: give an absolute path.";
        WorkingDirectoryNotFound, "working_directory_not_found", Invalid, retry: no,
            "The container has no such directory for the command to run in: create it or name another.";
        InvalidIdempotencyKey, "invalid_idempotency_key", Invalid, retry: no,
            "This is not an idempotency key: give 1 to 255 visible ASCII characters.";
        PeerIsSelf, "peer_is_self", Invalid, retry: no,
            "This is the address of the server itself: give the address of another server.";
        ProjectContainerLimit, "project_container_limit", Invalid, retry: no,
            "The project has as many containers as it may have: delete one, or raise the project's limit.";
        ServerContainerLimit, "server_container_limit", Invalid, retry: no,
            "The server has as many containers as it may have: delete one, or raise the server's limit.";
        ContainerSnapshotLimit, "container_snapshot_limit", Invalid, retry: no,
            "The container has as many snapshots as it may have: delete one, or raise the limit.";
        MissingToken, "missing_token", Denied, retry: no,
            "The request carries no token: send `Authorization: Bearer TOKEN`.";
        InvalidToken, "invalid_token", Denied, retry: no,
            "The server does not know this token, or the token was revoked: create a new one.";
        InvalidCredentials, "invalid_credentials", Denied, retry: no,
            "This server has no log-in by user name and password: use a token.";
        InsufficientPermissions, "insufficient_permissions", Denied, retry: no,
            "The token does not allow this: use a token with the rights that the message names.";
        HostNetworkDenied, "host_network_denied", Denied, retry: no,
            "The token may not create containers on the host's network, or the server does not offer it: use another network or another token.";
        SnapshotNotOwn, "snapshot_not_own", Denied, retry: no,
            "Through its own socket a container changes only snapshots that it took by it: ask from outside, with a token.";
        RouteNotFound, "route_not_found", NotFound, retry: no,
            "The API has no such path: see the API document.";
        ProjectNotFound, "project_not_found", NotFound, retry: no,
            "There is no such project, or the token may not see it: list the projects.";
        TrashNotFound, "trash_not_found", NotFound, retry: no,
            "No such container is in the trash: it was recovered, deleted for good, or never there; `GET /trash` lists what is there.";
        ContainerNotFound, "container_not_found", NotFound, retry: no,
            "There is no such container, or the token may not see it: list the containers.";
        SourceContainerNotFound, "source_container_not_found", NotFound, retry: no,
            "The container to copy, or to sync a copy with, does not exist or is hidden from the token: list the containers.";
        BranchPointNotFound, "branch_point_not_found", NotFound, retry: no,
            "The snapshot from which the fork branched off was deleted: reset it to its source, or sync it, and work on from there.";
        PeerNotFound, "peer_not_found", NotFound, retry: no,
            "There is no such peer: list the peers.";
        SnapshotNotFound, "snapshot_not_found", NotFound, retry: no,
            "The container has no such snapshot: list its snapshots.";
        ShareNotFound, "share_not_found", NotFound, retry: no,
            "There is no such share, or the token may not see it: list the shares.";
        ImageNotFound, "image_not_found", NotFound, retry: no,
            "There is no such image: list the images, or import it.";
        OperationNotFound, "operation_not_found", NotFound, retry: no,
            "There is no such operation, or the token may not see it: list the operations.";
        EventNotFound, "event_not_found", NotFound, retry: no,
            "There is no such event, or the token may not see it: events are kept for a limited time.";
        UnknownServer, "unknown_server", NotFound, retry: no,
            "No peer has this id: list the peers, or add the server as a peer first.";
        EnvironmentVariableNotFound, "environment_variable_not_found", NotFound, retry: no,
            "The container has no such environment variable: list its variables.";
        FileNotFound, "file_not_found", NotFound, retry: no,
            "There is nothing at this path: list the directory.";
        MethodNotAllowed, "method_not_allowed", Invalid, retry: no,
            "The path exists, but not with this HTTP method: see the API document.";
        RequestTimeout, "request_timeout", Timeout, retry: yes,
            "The body of the request did not arrive in time: send it again over a faster connection.";
        DiffNeedsWalk, "diff_needs_walk", Conflict, retry: no,
            "When the two snapshots parted is not known, so what changed cannot be read alone: ask with `walk=true` to read both completely.";
        DiffTooLarge, "diff_too_large", Conflict, retry: no,
            "More differs than is compared at once: compare snapshots that are closer together.";
        DiffUnsupported, "diff_unsupported", Conflict, retry: no,
            "The volumes of this server cannot be compared.";
        DedupeUnsupported, "dedupe_unsupported", Conflict, retry: no,
            "The volumes of this server cannot share data that were written twice: keep the pool on BTRFS.";
        DiskLimitUnsupported, "disk_limit_unsupported", Conflict, retry: no,
            "This pool does not count what containers write, so it cannot enforce disk limits: `GET /pool` says why.";
        ApiSocketUnsupported, "api_socket_unsupported", Conflict, retry: no,
            "This host serves no sockets in containers: leave `api_socket` out.";
        ForkLimit, "fork_limit", Conflict, retry: no,
            "The container has as many copies of its own making as it may have: delete one first.";
        TooManyNestedVolumes, "too_many_nested_volumes", Conflict, retry: no,
            "The container has more nested subvolumes than one snapshot may hold: delete some of them inside the container.";
        DuplicateAlias, "duplicate_alias", Exists, retry: no,
            "Another project has this alias: choose another one.";
        ContainerNameInUse, "container_name_in_use", Exists, retry: no,
            "Another container of the project has this name: choose another one.";
        SshPublicKeyInUse, "ssh_public_key_in_use", Exists, retry: no,
            "Another container has this SSH key: give each container its own key.";
        OperationStateConflict, "operation_state_conflict", Conflict, retry: no,
            "The container is in a state that forbids this: the message names the state and how to leave it.";
        ContainerNotRunning, "container_not_running", Conflict, retry: no,
            "The container is not running: start it first.";
        ContainerPaused, "container_paused", Conflict, retry: no,
            "The container is paused: resume it first.";
        OperationInProgress, "operation_in_progress", Busy, retry: yes,
            "Another change of the same thing is running: try again when it has ended.";
        SnapshotOperationInProgress, "snapshot_operation_in_progress", Busy, retry: yes,
            "Another change of the container is running: try again when it has ended.";
        NotACopy, "not_a_copy", Conflict, retry: no,
            "The container is not a copy, so there is nothing to sync it with.";
        NotRelated, "not_related", Conflict, retry: no,
            "The two containers are not copies of one another, nor of one and the same: name one that shares a branch point with the fork.";
        PromoteConflicts, "promote_conflicts", Conflict, retry: no,
            "The fork and its target changed the same differently, and nothing was changed: see `data.conflicts`, and say `prefer: fork` or `prefer: target`.";
        CopyHasChanges, "copy_has_changes", Conflict, retry: no,
            "The copy was changed since it was made and `force` is false: send `force: true` to overwrite the changes.";
        IdBaseDiffers, "id_base_differs", Conflict, retry: no,
            "The two servers map container ids to different host ids: give both the same id base.";
        PeerNameInUse, "peer_name_in_use", Exists, retry: no,
            "Another peer has this name: choose another one.";
        HandoverRefused, "handover_refused", Conflict, retry: no,
            "The move was cancelled, or a newer one replaced it: start the move again.";
        HandoverTaken, "handover_taken", Conflict, retry: no,
            "The other server has taken the container over, so the move cannot be cancelled any more.";
        BaseMissing, "base_missing", Conflict, retry: no,
            "The snapshot that an increment builds on no longer exists: ask for an increment on another one, or for a full stream.";
        PathTooLong, "path_too_long", Conflict, retry: no,
            "A path in the container is longer than BTRFS can send: shorten it.";
        TooManyAttributes, "too_many_attributes", Conflict, retry: no,
            "The names of a file's extended attributes are longer than the kernel can list (64 KiB): remove some of them.";
        TooManyVolumes, "too_many_volumes", Conflict, retry: no,
            "The container has more subvolumes inside than can be sent: delete some of them.";
        AliasInUse, "alias_in_use", Exists, retry: no,
            "Another snapshot of the container has this alias: choose another one.";
        SnapshotAmbiguous, "snapshot_ambiguous", Conflict, retry: no,
            "The alias of one snapshot is the canonical name of another: give the id or the full name.";
        NameAmbiguous, "name_ambiguous", Conflict, retry: no,
            "The id of one thing is the name of another: give the id of the one you mean.";
        SnapshotPinned, "snapshot_pinned", Conflict, retry: no,
            "The snapshot is pinned: unpin it first.";
        DatabasesShared, "databases_shared", Conflict, retry: no,
            "Other containers use the databases too: say `databases: revert` or `databases: keep`.";
        DatabasesBusy, "databases_busy", Busy, retry: yes,
            "A database was being written for longer than the server waits: try again when the transaction has ended.";
        BackingInUse, "backing_in_use", Conflict, retry: no,
            "A directory of databases is mounted elsewhere on this machine: unmount it there; the message names the place and the process.";
        ShareAlreadyExists, "share_already_exists", Exists, retry: no,
            "This directory is shared with this target already: change the share that exists.";
        NothingToUndo, "nothing_to_undo", Conflict, retry: no,
            "There is no restore left to undo.";
        NotADirectory, "not_a_directory", Conflict, retry: no,
            "Something on the path is a directory in the request but not in the container: list the directory above it.";
        RangeNotSatisfiable, "range_not_satisfiable", Invalid, retry: no,
            "The file has none of the bytes that the request's range names: `Content-Range` in the answer has its length.";
        PreconditionFailed, "precondition_failed", Conflict, retry: no,
            "The file is not the one that `If-Match` or `If-None-Match` asks for, and nothing was changed: read it again, then decide.";
        DatabaseFile, "database_file", Conflict, retry: no,
            "Files of databases are not written or deleted as plain files: restore them from a snapshot, or use SQLite in the container.";
        FilesUnsupported, "files_unsupported", Conflict, retry: no,
            "The server keeps its volumes in memory, so there are no files to read or write: use a server with a pool.";
        NotInVolume, "not_in_volume", Conflict, retry: no,
            "What the container has at this path is mounted there (a RAM disk, a share, `/proc`) and is in no volume and no snapshot: use `exec` in the running container.";
        IsADirectory, "is_a_directory", Conflict, retry: no,
            "This is a directory, and the request needs a file: name a file in it, or say that the whole directory is meant.";
        NotARegularFile, "not_a_regular_file", Conflict, retry: no,
            "This is a FIFO, a socket, a device or a symbolic link that is not followed: only regular files are opened.";
        ImageExists, "image_exists", Exists, retry: no,
            "There is an image of this name already: choose another name, or delete that image.";
        ExecFailed, "exec_failed", Conflict, retry: no,
            "The command could not be run because it was not found, is not executable, or the container ended: the message says which.";
        ContainerTaskLimit, "container_task_limit", Conflict, retry: no,
            "The container has as many processes and threads as it may have, so nothing can be started in it: end some, or raise its limit.";
        OperationFinished, "operation_finished", Conflict, retry: no,
            "The operation has ended, so it cannot be cancelled.";
        OperationNotCancellable, "operation_not_cancellable", Conflict, retry: no,
            "The operation is past the point where it could be cancelled: wait for its end.";
        OperationCancelled, "operation_cancelled", Cancelled, retry: no,
            "The operation was cancelled and what it had begun was undone: start it again if it is still wanted.";
        TokenNotBound, "token_not_bound", Conflict, retry: no,
            "No server has used this replication token yet: the server that it is for must add this one as a peer with it.";
        PeerTokenInUse, "peer_token_in_use", Exists, retry: no,
            "A server that already has a token used a replication token that was made for no server in particular: remove its old peer first.";
        IdempotencyInFlight, "idempotency_in_flight", Busy, retry: yes,
            "The first request with this idempotency key has not ended yet: try again in a moment.";
        RequestTooLarge, "request_too_large", TooLarge, retry: no,
            "The body of the request is larger than its limit: send less.";
        ImageHeaderTooLarge, "image_header_too_large", TooLarge, retry: no,
            "An entry of the image has headers that are too large: shorten its name or its attributes.";
        ImageTooLarge, "image_too_large", TooLarge, retry: no,
            "The image is larger than the pool or than the server allows: make it smaller, or raise the bound.";
        IdempotencyKeyReused, "idempotency_key_reused", KeyReused, retry: no,
            "The idempotency key was used with a different request: use a new key.";
        AddressLimit, "address_limit", Unavailable, retry: yes,
            "This address has as many connections, or Socket.IO sessions without a token, as one address may have: close some.";
        Internal, "internal", Internal, retry: no,
            "This is a bug of hoody-state: the server's log has more.";
        Interrupted, "interrupted", Internal, retry: yes,
            "The server ended in the middle, and what had begun was undone: start the operation again.";
        Io, "io", Io, retry: no,
            "A system call failed: the server's log has more.";
        ShareMountFailed, "share_mount_failed", Io, retry: no,
            "A share could not be mounted in a running container: restart the container.";
        CatalogCorrupt, "catalog_corrupt", Corrupt, retry: no,
            "The stored data contradicts itself: stop the server and run `check`.";
        StartFailed, "start_failed", Conflict, retry: no,
            "The runtime could not start the container: the message has the runtime's reason.";
        PeerUnreachable, "peer_unreachable", Unavailable, retry: yes,
            "The other server does not answer: check its address, its certificate and the network.";
        PeerRefused, "peer_refused", Unavailable, retry: no,
            "The other server does not accept the token, or does not run this version: renew the token, or bring both to one version.";
        PeerFailed, "peer_failed", Unavailable, retry: yes,
            "The other server failed: its log says why.";
        TransferCut, "transfer_cut", Unavailable, retry: yes,
            "A stream between two servers broke off: try again; what arrived complete is kept.";
        StreamCorrupt, "stream_corrupt", Corrupt, retry: yes,
            "A stream between two servers was damaged and nothing of it was kept: try again.";
        StreamRefused, "stream_refused", Invalid, retry: no,
            "A stream from another server contains what no honest server sends, or what this version does not know: bring both to one version.";
        PoolTaskLimit, "pool_task_limit", Unavailable, retry: yes,
            "All containers together have as many processes and threads as they may have, so nothing can be started: end some, or raise `--pool-tasks`.";
        TooManyStreams, "too_many_streams", Unavailable, retry: yes,
            "The server is sending as many snapshots to other servers as it may: try again in a moment.";
        RateLimited, "rate_limited", Unavailable, retry: yes,
            "The container asks more often through its socket than it may: try again after as many seconds as `Retry-After` says.";
        ServerBusy, "server_busy", Unavailable, retry: yes,
            "The server has as many calls in progress as it may have, in total or for this caller: try again in a moment.";
        TooManyConnections, "too_many_connections", Unavailable, retry: yes,
            "The server has as many connections as it may have: try again in a moment.";
        ExecLimit, "exec_limit", Unavailable, retry: yes,
            "As many commands are running as may run, in total or in this project: try again when one has ended.";
        UploadLimit, "upload_limit", Unavailable, retry: yes,
            "As many images are being uploaded as may be, in total or by this caller: try again when one has ended.";
        WaitLimit, "wait_limit", Unavailable, retry: yes,
            "As many requests are waiting for operations as may wait, in total or for this caller: ask without `Prefer: wait`.";
        StreamLimit, "stream_limit", Unavailable, retry: yes,
            "As many logs and events are being followed as may be, in total, in this project or by this caller: close some.";
        SessionLimit, "session_limit", Unavailable, retry: yes,
            "As many Socket.IO sessions as may be have not sent a token yet: try again in a moment.";
        NoTransport, "no_transport", Unavailable, retry: no,
            "This host was opened without a transport to other servers: open it with one.";
        DatabasesFull, "databases_full", Unavailable, retry: no,
            "The databases' daemon serves as many directories as it can: stop containers that are not needed.";
        DatabasesUnavailable, "databases_unavailable", Unavailable, retry: yes,
            "The databases' daemon is not running or does not answer: its log says why; the server starts it again.";
        RamdiskFailed, "ramdisk_failed", Unavailable, retry: no,
            "A RAM disk could not be mounted: the message has the kernel's reason.";
        RuntimeNotFound, "runtime_not_found", Unavailable, retry: no,
            "This host has no container runtime: install runc or crun.";
        RuntimeUnusable, "runtime_unusable", Unavailable, retry: no,
            "The container runtime of this host does not work: the message has its answer.";
        NotReady, "not_ready", Unavailable, retry: yes,
            "The catalog or the pool does not answer: the server's log says why.";
        PoolReadOnly, "pool_read_only", Unavailable, retry: no,
            "The kernel made the pool read-only because it could not write to it: `GET /pool` says what to do.";
        FreezeTimeout, "freeze_timeout", Timeout, retry: yes,
            "The container could not be frozen in time, and it runs on: try again.";
        KillTimeout, "kill_timeout", Timeout, retry: yes,
            "The container's processes did not end in time: try again; a process may be waiting for a disk.";
        DiskLimitReached, "disk_limit_reached", NoSpace, retry: no,
            "The disk limit of the container or of its project is reached: delete something in it, or raise the limit.";
        PoolFull, "pool_full", NoSpace, retry: no,
            "The pool does not have enough space, and nothing was changed: delete snapshots or containers, or grow the pool.";
    }
    // What only a start of the server, its tools, or a caller of the library meets.
    host {
        ActiveSwapFile, "active_swap_file", Conflict, retry: no,
            "A volume has an active swap file, so no copy of it can be made: switch the swap file off (`swapoff`).";
        AddressInUse, "address_in_use", Busy, retry: no,
            "Another program listens on this address: give another `--listen`.";
        AlreadyRunning, "already_running", Conflict, retry: no,
            "The container is running already.";
        BadPath, "bad_path", Invalid, retry: no,
            "This path or name leads out of the directory it must be in: give a relative path without `..` and without symbolic links.";
        BadRequest, "bad_request", Invalid, retry: no,
            "The databases' daemon does not understand the question: bring the server and the daemon to one version.";
        BadVolume, "bad_volume", Invalid, retry: no,
            "The daemon cannot serve this directory, or not under this name: the message says why.";
        BtrfsUnavailable, "btrfs_unavailable", Unavailable, retry: no,
            "This kernel has no BTRFS: load the module (`modprobe btrfs`).";
        Cancelled, "cancelled", Cancelled, retry: no,
            "The caller cancelled this.";
        Catalog, "catalog", Internal, retry: no,
            "The catalog refused a statement, which is a bug of hoody-state: the log has more.";
        CatalogBusy, "catalog_busy", Busy, retry: yes,
            "Another process is writing the catalog: try again.";
        CatalogTooNew, "catalog_too_new", Unavailable, retry: no,
            "A newer version wrote the catalog: use that version, or a newer one.";
        CgroupNotFound, "cgroup_not_found", NotFound, retry: no,
            "The container has no control group, so it is not running.";
        Crashed, "crashed", Internal, retry: no,
            "A test stopped the operation as a crash would, or the server ended meanwhile: the next start recovers it.";
        DataInUse, "data_in_use", Conflict, retry: no,
            "Another server uses this data directory: stop it, or give another `--data`.";
        DataNotFound, "data_not_found", NotFound, retry: no,
            "This data directory has no pool: `serve --data` creates one.";
        DatabasesFailed, "databases_failed", Io, retry: no,
            "The databases' daemon failed at this: the message has its reason.";
        DemoBusybox, "demo_busybox", Invalid, retry: no,
            "This program is not a static busybox, so no demo image can be made of it: give another.";
        ExecCancelled, "exec_cancelled", Cancelled, retry: no,
            "The command was killed because its caller left or cancelled it.";
        IdBaseMismatch, "id_base_mismatch", Conflict, retry: no,
            "The pool was created with another id base: give that one.";
        ImageRootNotEmpty, "image_root_not_empty", Conflict, retry: no,
            "An image can be unpacked only into an empty directory.";
        InvalidCgroupParent, "invalid_cgroup_parent", Invalid, retry: no,
            "This is not a valid name for the parent of control groups: the message says why.";
        InvalidCommand, "invalid_command", Invalid, retry: no,
            "The command is empty or contains a NUL byte: give a program and its arguments.";
        InvalidEnvironment, "invalid_environment", Invalid, retry: no,
            "An environment variable has an invalid name or contains a NUL byte.";
        InvalidLimit, "invalid_limit", Invalid, retry: no,
            "This limit is out of range: give a value within the range that the message names.";
        InvalidRoot, "invalid_root", Invalid, retry: no,
            "The container's root must be an absolute path in UTF-8.";
        InvalidSize, "invalid_size", Invalid, retry: no,
            "This is not a size: write a number of bytes, or one such as `512M` or `20G`.";
        InvalidAge, "invalid_age", Invalid, retry: no,
            "This is not an age: write a number and a unit, such as `90s`, `15m`, `6h`, `7d` or `2w`; at most 3650 days.";
        InvalidTokenName, "invalid_token_name", Invalid, retry: no,
            "This is not a valid name for a token: use the characters and the length that the message names.";
        LimitBelowUsage, "limit_below_usage", Conflict, retry: no,
            "More than this limit is in use already: free some first, or set a higher limit.";
        LoopUnavailable, "loop_unavailable", Unavailable, retry: no,
            "This kernel offers no loop device: load the module (`modprobe loop`), or use a disk.";
        MkfsFailed, "mkfs_failed", Io, retry: no,
            "The file system could not be made: the message has the reason of `mkfs.btrfs`.";
        MkfsNotFound, "mkfs_not_found", Unavailable, retry: no,
            "`mkfs.btrfs` is not installed: install btrfs-progs.";
        MountPointInUse, "mount_point_in_use", Conflict, retry: no,
            "Something else is mounted where the pool should be: unmount it, or give another `--run`.";
        NoCgroups, "no_cgroups", Unavailable, retry: no,
            "No control groups are mounted: mount them (`mount -t cgroup2 none /sys/fs/cgroup`).";
        NoController, "no_controller", Unavailable, retry: no,
            "The kernel does not offer a controller that a limit needs: enable the controller, or remove the limit.";
        NoFreezer, "no_freezer", Unavailable, retry: no,
            "The kernel offers no freezer for control groups: use a kernel of 5.2 or newer with cgroup2, or mount the v1 freezer.";
        NoRandomness, "no_randomness", Unavailable, retry: no,
            "The operating system gives no random bytes, so no token can be made.";
        NotADatabase, "not_a_database", Corrupt, retry: no,
            "The saved file is not a usable SQLite database: restore from another snapshot.";
        NotADevice, "not_a_device", Invalid, retry: no,
            "This is not a block device: give a disk or a partition.";
        NotASocket, "not_a_socket", Conflict, retry: no,
            "There is a file at the place of the socket: give another `--socket`.";
        NotAVolume, "not_a_volume", Corrupt, retry: no,
            "There is a directory where the pool should have a subvolume: run `check`.";
        NotRoot, "not_root", Denied, retry: no,
            "This needs root: run it with sudo.";
        NotRunning, "not_running", Conflict, retry: no,
            "The container is not running.";
        PoolBusy, "pool_busy", Busy, retry: yes,
            "The pool cannot be unmounted while programs use it: end them first.";
        PoolForeign, "pool_foreign", Conflict, retry: no,
            "There is something here that hoody-state did not make, and it is left alone: give another place.";
        PoolIncomplete, "pool_incomplete", Corrupt, retry: no,
            "A directory of the pool is missing: open the pool again.";
        PoolMountedElsewhere, "pool_mounted_elsewhere", Conflict, retry: no,
            "The pool is mounted at another place: unmount it there, or give that `--run`.";
        PoolNotFound, "pool_not_found", NotFound, retry: no,
            "There is no pool in this data directory: `serve` creates one.";
        PoolRecordBroken, "pool_record_broken", Corrupt, retry: no,
            "The pool's own record cannot be read: restore `pool.json` from a copy.";
        PoolShrink, "pool_shrink", Invalid, retry: no,
            "A pool can grow but not shrink: give its present size or a larger one.";
        PoolSizeOfDevice, "pool_size_of_device", Invalid, retry: no,
            "A pool on a disk has the size of the disk: give no size.";
        PoolTooNew, "pool_too_new", Conflict, retry: no,
            "A newer version made this pool: use that version, or a newer one.";
        PoolTooSmall, "pool_too_small", Invalid, retry: no,
            "A pool of this size is too small for BTRFS: give a larger size.";
        ReceiverEnded, "receiver_ended", Conflict, retry: no,
            "The container that a share is mounted in has ended.";
        RemountFailed, "remount_failed", Io, retry: no,
            "A directory of databases could not be mounted again in a running container: restart the container.";
        RestoreFailed, "restore_failed", Io, retry: no,
            "A database could not be restored, and it is as it was: the message has the reason.";
        RunNotPassable, "run_not_passable", Conflict, retry: no,
            "Containers cannot reach a directory above `--run`: choose another `--run`, or let others pass (`chmod o+x`).";
        ShareSourceMissing, "share_source_missing", Conflict, retry: no,
            "The shared directory does not exist in its container: create it again, or end the share.";
        ShareSourceRefused, "share_source_refused", Conflict, retry: no,
            "The shared path is not a directory or leads through a symbolic link: share another path.";
        SocketInUse, "socket_in_use", Busy, retry: no,
            "Another server listens on this socket: stop it, or give another `--socket`.";
        StagingForeign, "staging_foreign", Corrupt, retry: no,
            "The pool's staging directory contains something that hoody-state did not make: remove it.";
        TlsNames, "tls_names", Invalid, retry: no,
            "No certificate can be made for these names: give host names or IP addresses.";
        TlsUnusable, "tls_unusable", Invalid, retry: no,
            "The certificate and the key cannot be used: give both as PEM, and such that they match.";
        TokenNameInUse, "token_name_in_use", Exists, retry: no,
            "There is a token of this name: choose another name, or revoke that token.";
        TokenNotFound, "token_not_found", NotFound, retry: no,
            "There is no such token: list the tokens.";
        VolumeExists, "volume_exists", Exists, retry: no,
            "There is a volume of this name already.";
        VolumeInUse, "volume_in_use", Busy, retry: yes,
            "Somebody is using the volume or changing it: try again when that has ended, or stop the container.";
        VolumeNotFound, "volume_not_found", NotFound, retry: no,
            "There is no such volume.";
        VolumeReadOnly, "volume_read_only", Conflict, retry: no,
            "The volume is read-only, and this needs a writable one.";
        VolumeWritable, "volume_writable", Conflict, retry: no,
            "The volume is writable, and this needs a read-only one.";
    }
}
