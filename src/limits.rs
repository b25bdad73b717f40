//! Every capacity and every default, in one place.
//!
//! `*_MAX` is a compile-time capacity: reaching it is an answer, never a crash. What an operator
//! may set below it is a `*_limit` in `hob.toml`. Relations between capacities are asserted here,
//! at compile time.

/// Slots in the table: the most processes that serve functions at one time.
pub const SLOTS_MAX: usize = 256;

/// Functions known at one time.
pub const FUNCTIONS_MAX: usize = 128;

/// Versions the pool keeps: for each function the one that serves and one on its way out.
pub const VERSIONS_MAX: usize = 2 * FUNCTIONS_MAX;

/// Invocations that wait for a worker at one time, over all functions.
pub const WAITING_MAX: usize = 256;

/// Actions one placement can ask of the host: settle an invocation, and forget the version whose
/// last waiter that was. Everything else asks for one.
pub const PLACEMENT_ACTIONS: usize = 2;

/// Actions one event can ask of the host:
/// 2 for the event itself (settle its invocation and stop its worker),
/// 1 to forget a version whose last worker this was,
/// 2 placements; more of them take one more event each.
pub const ACTIONS_MAX: usize = 2 + 1 + 2 * PLACEMENT_ACTIONS;

/// Largest event a synchronous invocation may carry, as on Lambda.
pub const PAYLOAD_MAX: usize = 6 * 1024 * 1024;

/// Largest reply a function may give, as on Lambda: 6 MiB and a little.
pub const REPLY_MAX: usize = PAYLOAD_MAX + 100;

/// Largest reply that a function may stream, as on Lambda.
pub const STREAMED_MAX: usize = 200 * 1024 * 1024;
/// Bytes of one piece of it: as large as a buffer that is kept for reuse.
pub const STREAM_PIECE_MAX: usize = 16 * 1024;
/// Bytes of it that wait for their caller, beyond which its worker is not read: of a stream whose
/// caller is slow there is this, a piece on top, as much on its way to the caller, and a piece that
/// is just being read.
pub const STREAM_WAITING_MAX: usize = 16 * 1024;
/// Bytes of what stands in front of a streamed HTTP response: its status, fields and cookies.
pub const PRELUDE_MAX: usize = 64 * 1024;
/// Bytes of a type of content that goes on to the caller.
pub const CONTENT_TYPE_MAX: usize = 256;

/// Client connections at one time, over all listeners of the API.
pub const CONNECTIONS_MAX: usize = 512;
/// Clients beyond that which are told so at one time; the others just see the end.
pub const TURNED_AWAY_MAX: usize = 16;
/// Bytes of a request head: the API's clients send below 8 KiB.
pub const HEAD_MAX: usize = 64 * 1024;
/// Bytes of a request head from a worker: a 1 MiB error cause in one field, as on Lambda.
pub const RUNTIME_HEAD_MAX: usize = 1024 * 1024 + 64 * 1024;
/// Connections of one worker to the Runtime API at one time: five, as Node opens, and some in
/// passing.
pub const RUNTIME_CONNECTIONS_MAX: u8 = 8;
/// Bytes of a worker's request body that is not an answer: errors of its start and the like.
pub const RUNTIME_BODY_MAX: usize = 256 * 1024;
/// Extensions of one worker, as on Lambda.
pub const EXTENSIONS_MAX: usize = 10;
/// Further connections for each of them that is a process of its own: one that waits for events,
/// and one in passing.
pub const EXTENSION_CONNECTIONS_MAX: u8 = 2;
/// Time a client has for a request head, and the least it has for a body.
pub const HEAD_MS: u32 = 20_000;
/// Rate below which a client that sends or takes a body is given up: a modem is faster.
pub const BODY_BYTES_PER_S_MIN: usize = 4 * 1024;
/// Time a connection may idle between requests: longer than SDKs keep theirs (60 s).
pub const IDLE_MS: u32 = 75_000;
/// Time from a request to the end of its client's sending side within which that only means that
/// no further request follows: more than a lost packet takes, less than any client's patience.
pub const HALF_CLOSE_MS: u32 = 500;
/// Time to wait after the system refused to accept (no descriptors, no memory).
pub const ACCEPT_PAUSE_MS: u32 = 100;
/// Bytes that are read of one client before the others have their turn: a tenth of a millisecond.
pub const TURN_BYTES: u32 = 256 * 1024;
/// How much of a refused request is still read so that its client gets to read the answer ...
pub const DRAIN_BYTES_MAX: usize = 80 * 1024 * 1024;
/// ... and for how long.
pub const DRAIN_MS: u32 = 5_000;
/// Time between looks for clients that still read their replies, while the server stops.
pub const REPLIED_LOOK_MS: u32 = 5;

/// Time between looks for connections that have come to rest and go to the server's successor.
pub const HAND_OVER_LOOK_MS: u32 = 2;
/// How long a successor may take until it serves: it reads all functions first.
pub const UPGRADE_WAIT_S_DEFAULT: u32 = 30;
/// Bytes of what a successor is told: the keys of workers that its predecessors still have.
pub const UPGRADE_HELLO_MAX: usize = 4 * 1024;
/// Workers' keys that go from server to server: as many upgrades as may overlap.
pub const UPGRADE_KEYS_MAX: usize = 16;

/// First size of a buffer: a request with its head and a small payload.
pub const BUFFER_SIZE: usize = 4 * 1024;
/// Largest buffer that is kept for reuse; what a large payload needed goes back to the system.
pub const BUFFER_KEPT_MAX: usize = 16 * 1024;
/// Buffers kept for reuse, until the server is quiet: more are in use at one moment only under load.
pub const BUFFERS_KEPT: usize = 16;
/// Largest body of a client that may go on growing where larger ones are refused.
pub const BODY_SMALL_MAX: usize = 64 * 1024;
/// Most bytes of all buffers together: ten of the largest events, each with its reply ...
pub const BUFFERS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// ... but no more than this part of the memory budget: one largest event with its reply has room
/// from 64 MB on.
pub const BUFFERS_BUDGET_PART: u32 = 4;

/// KiB of the server itself: the whole of its program, which is promised to be at most 2 MiB, and
/// half a MiB of its own (measured: 332 KiB with 64 workers and as many connections).
pub const SERVER_KIB: u32 = 2_048 + 512;
/// KiB of a connection that waits, as promised (measured: 1.2). What it sends is in a buffer.
pub const CONNECTION_KIB: u32 = 2;
/// KiB of the smallest worker, a shell that waits: 104 of its own, 44 of page tables, 16 of kernel
/// stack, and a part for its sockets and for what the server keeps of it (measured, x86_64).
pub const WORKER_KIB_MIN: u32 = 192;
/// Where no board is known, the memory budget is this part of the machine's memory ...
pub const GENERIC_MEMORY_PART: u32 = 2;
/// ... and there are so many slots for each core, up to the default.
pub const GENERIC_SLOTS_PER_CORE: u16 = 8;
/// A function's memory if nobody says otherwise, in MB, and the least there, as on Lambda.
pub const MEMORY_MB_DEFAULT: u32 = 128;
/// Most that a memory budget may be, in MB: a terabyte.
pub const MEMORY_BUDGET_MB_MAX: u32 = 1024 * 1024;

/// How long nothing must happen before the server gives back the memory of its own program: a
/// second of quiet is rare under load, and the price of a warm invocation's page faults is not
/// paid more than once a second.
pub const QUIET_MS: u32 = 1_000;

/// Most slots where neither the operator nor a board says otherwise.
pub const SLOTS_DEFAULT: u16 = 16;

/// How long an invocation waits for a worker before it is refused.
pub const QUEUE_WAIT_MS_DEFAULT: u32 = 1_000;

/// How long it waits at least, while half of the waiting line is free. Callers that ask again at once, as
/// under overload, would take the time of those that are served, and a worker that is nearly done is
/// soon there.
pub const QUEUE_WAIT_MS_MIN: u32 = 6;

/// How long a worker sits idle before it is stopped.
pub const IDLE_TIMEOUT_S_DEFAULT: u32 = 600;

/// How long a stopped worker may take to clean up before it is killed.
pub const GRACE_MS_DEFAULT: u32 = 500;

/// The same for a worker with external extensions, as on Lambda: they send off what they gathered.
pub const EXTENSIONS_GRACE_MS_DEFAULT: u32 = 2_000;
/// Most of that which is the runtime's own, as on Lambda: it is killed then, and what is left is
/// the extensions' ...
pub const RUNTIME_SHARE_MS_MAX: u32 = 300;
/// ... or this, if the runtime has an extension of its own to look after ...
pub const RUNTIME_SHARE_INTERNAL_MS_MAX: u32 = 500;
/// ... but no more than so much of a hundred, where the whole is short.
pub const RUNTIME_SHARE_PERCENT: u32 = 30;

/// How long a worker may take from its spawn to its first request for work, as on Lambda.
pub const INIT_LIMIT_S_DEFAULT: u32 = 10;

/// The least that a provisioned worker may take for that, as on Lambda: nobody waits for it.
pub const PROVISIONED_INIT_LIMIT_MS: u32 = 130_000;

/// How long an invocation waits for a worker that has replied but not yet asked for more, before
/// it takes another worker. Runtimes need well under a millisecond for that step; 8 ms leaves
/// room for a board with one slow core, and is still shorter than any interpreter's start.
pub const PATIENCE_MS: u32 = 8;

/// Starts of one invocation's worker: the first try, and one more inside the invocation.
pub const STARTS_MAX: u8 = 2;

/// Wait before a version that failed to start is tried again: doubled each time from here ...
pub const BACKOFF_MS_MIN: u32 = 1_000;
/// ... up to here, so a broken function costs a board one start a minute.
pub const BACKOFF_MS_MAX: u32 = 60_000;
/// Wait after the machine refused a process: 50 ms is at most 20 futile attempts a second.
pub const SPAWN_PAUSE_MS: u32 = 50;

const _: () = {
    // Slots, versions and waiters name each other by u16, with u16::MAX for "none".
    assert!(SLOTS_MAX < u16::MAX as usize);
    assert!(WAITING_MAX < u16::MAX as usize);
    assert!(VERSIONS_MAX < u16::MAX as usize);
    assert!(SLOTS_DEFAULT as usize <= SLOTS_MAX);
    // A worker that needs its whole grace must not outlast the line's patience by default.
    assert!(GRACE_MS_DEFAULT < QUEUE_WAIT_MS_DEFAULT);
    assert!(BACKOFF_MS_MIN <= BACKOFF_MS_MAX);
};

/// Stack of a worker's process between clone and exec: a few frames of system calls. Pages that
/// are not touched cost nothing.
pub const WORKER_STACK: usize = 64 * 1024;
/// Most that a worker's private `/tmp` holds, in KiB, as on Lambda ...
pub const TMP_KIB_MAX: u64 = 512 * 1024;
/// ... but no more than this part of the machine's memory, which is where it is.
pub const TMP_MEMORY_PART: u64 = 4;
/// Descriptors a worker may have open, as on Lambda.
pub const WORKER_FILES_MAX: u64 = 1024;
/// How long a killed process may take to be gone: it is then its parent's affair, or the kernel's.
pub const STRAY_MS: u32 = 2_000;
/// Time between looks for processes that die late, only while there are such.
pub const STRAY_SWEEP_MS: u32 = 10;

/// Bytes of a message from a zygote: an error of its initialisation is the largest.
pub const ZYGOTE_FRAME_MAX: usize = 256 * 1024;
/// Time between looks whether a process that was asked for died before it could say so; a fork takes
/// a few thousandths of it.
pub const FORK_MS: u32 = 1_000;
/// How long a version's workers are started plainly after its zygote crashed.
pub const ZYGOTE_AGAIN_MS: u32 = 60_000;
/// The least time that a zygote stays without workers: they may stop at once, and come again.
pub const ZYGOTE_IDLE_MS_MIN: u32 = 1_000;
/// A function is hot, and gets a spare worker, if this many workers of it were wanted ...
pub const SPARE_STARTS_MIN: usize = 2;
/// ... within this time.
pub const SPARE_STARTS_MS: u32 = 10_000;
/// Wait before a spare is made: the worker that is wanted now goes first.
pub const SPARE_AFTER_MS: u32 = 1;
/// How long a spare is kept that nobody wants.
pub const SPARE_IDLE_MS: u32 = 60_000;

/// Longest line of a worker's output that is kept whole; the rest of a longer one is dropped, and
/// counted.
pub const LINE_MAX: usize = 8 * 1024;
/// Bytes of a worker's output read at one time.
pub const OUTPUT_READ: usize = 4 * 1024;
/// Bytes that a pipe holds: what a worker wrote before it spoke is no more than this, and a worker
/// that writes without end has its turn like the others.
pub const PIPE_BYTES: usize = 64 * 1024;
/// Bytes of the log ring, over all functions: a few hundred invocations.
pub const LOG_RING: usize = 32 * 1024;
/// Bytes of log that `LogType: Tail` returns, as on Lambda.
pub const TAIL_MAX: usize = 4 * 1024;
/// Time between looks at a worker's memory: reading it costs about as much as a warm invocation.
pub const MEMORY_READ_MS: u32 = 1_000;
/// Time from SIGTERM to the end of the conversation: runtimes that are blocked in their request
/// for work run their cleanup only then, and those that are not have begun it by then.
pub const HANG_UP_MS: u32 = 20;
/// Time from the end of a native worker's stream to the end of its process, if it goes by itself.
pub const EXIT_MS: u32 = 100;
/// Time in which a runtime that asks for more in the middle of an invocation may begin to answer on
/// another connection; then it gets the same event again.
pub const AGAIN_MS: u32 = 1_000;
/// Bytes of a program's standard error that go into its error message: its last lines.
pub const ERROR_TEXT_MAX: usize = 1024;
/// Bytes of a client context, decoded, as on Lambda.
pub const CLIENT_CONTEXT_MAX: usize = 3_583;
/// Passes of one chain of invocations through a function before that counts as a loop, as on
/// Lambda.
pub const RECURSION_PASSES_MAX: u32 = 16;
/// Bytes of a caller's trace header; a longer one is replaced by one of ours.
pub const TRACE_MAX: usize = 512;

/// Key pairs in `[auth]`: one for each of a board's users and programs.
pub const AUTH_KEYS_MAX: usize = 32;
/// Function names or patterns of one key.
pub const AUTH_FUNCTIONS_MAX: usize = FUNCTIONS_MAX;
/// Most that a signature's time may differ from ours, as on AWS.
pub const SIGNATURE_SKEW_S: u64 = 300;
/// A clock that shows less, in Unix time, was not set yet: this is the start of 2025.
pub const CLOCK_SET_S: u64 = 1_735_689_600;
/// Header fields that a signature may cover: as many as a head has.
pub const SIGNED_FIELDS_MAX: usize = 100;

/// Origins, and names of header fields, that a function URL's `cors` may list, as on Lambda ...
pub const CORS_LIST_MAX: usize = 100;
/// ... and methods.
pub const CORS_METHODS_MAX: usize = 6;

/// Bytes of a `function.toml`: a list of 4 KiB of environment has a few.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// Published layers that a complaint about one that is missing names.
pub const ALLOWED_SHOWN_MAX: usize = 8;
/// Complaints about one file that are worth reading.
pub const ISSUES_MAX: usize = 20;
/// Bytes of a function's files, as on Lambda.
pub const CODE_BYTES_MAX: u64 = 262_144_000;
/// Files and directories of a function: a large `node_modules` has a few ten thousand.
pub const CODE_FILES_MAX: usize = 100_000;
/// Directories in directories of a function.
pub const CODE_DEPTH_MAX: usize = 64;
/// Bytes of what is kept of a function beside its versions, or of one of them: a policy of 20 KiB,
/// an environment of 4 KiB, tags, aliases.
pub const RECORD_BYTES_MAX: u64 = 256 * 1024;
/// How long a server that starts waits for the one that uses its data directory to be gone ...
pub const LOCK_WAIT_MS: u64 = 500;
/// ... and the time between looks.
pub const LOCK_LOOK_MS: u64 = 10;
/// Bytes of a zip that is pushed, as on Lambda.
pub const ZIP_BYTES_MAX: usize = 52_428_800;
/// Bytes that a helper process may print: a line for each function.
pub const HELPER_REPLY_MAX: usize = 256 * 1024;
/// Bytes of a request with a zip in it, as on Lambda: the zip in base64, and a little.
pub const UPLOAD_BYTES_MAX: usize = 70_167_211;
/// Bytes of a request to the control plane that has no zip in it.
pub const CONTROL_BODY_MAX: usize = 128 * 1024;
/// Items on a page of a list of functions or versions, as on Lambda.
pub const LIST_PAGE_MAX: usize = 50;
/// Characters of a description, as on Lambda.
pub const DESCRIPTION_MAX: usize = 256;
/// Characters of a destination of asynchronous invocations, as on Lambda.
pub const DESTINATION_MAX: usize = 350;
/// Characters of a function URL that clients of Lambda's API expect at most.
pub const URL_LENGTH_MAX: usize = 100;
/// Bytes of all code, as Lambda tells it: what a board has room for is the disk's affair.
pub const CODE_TOTAL_MAX: u64 = 80_530_636_800;
/// Bytes of the server's program that its built-in function hashes at one time.
pub const PROBE_READ: usize = 64 * 1024;
/// Bytes of a download that are read and sent at one time.
pub const DOWNLOAD_SEND: usize = 64 * 1024;
/// Layers of a function, as on Lambda.
pub const LAYERS_MAX: usize = 5;
/// Runtimes that a layer may say it is for, as on Lambda.
pub const LAYER_RUNTIMES_MAX: usize = 15;
/// Characters of a layer's license, as on Lambda.
pub const LICENSE_MAX: usize = 512;
/// Bytes of a policy, as on Lambda.
pub const POLICY_BYTES_MAX: usize = 20 * 1024;
/// Tags of a function, as on Lambda.
pub const TAGS_MAX: usize = 50;
/// How long an invocation waits for its function to be read while the server starts.
pub const LOAD_WAIT_MS: u32 = 5_000;
/// Bytes of log text sent at one time.
pub const LOG_SEND: usize = 16 * 1024;
/// Directories of function folders that are watched.
pub const WATCHES_MAX: usize = 1024;
/// How long a folder must be quiet before it is read ...
pub const CHANGE_QUIET_MS: u32 = 200;
/// ... unless it has been changing for this long.
pub const CHANGE_AT_MOST_MS: u32 = 2_000;
/// Time before the disk is read again after that failed, doubled each time from here ...
pub const LOOK_AGAIN_MS: u32 = 1_000;
/// ... up to here: a directory that is not mounted yet costs four helpers a minute.
pub const LOOK_AGAIN_MS_MAX: u32 = 15_000;
/// How long a board waits for the deployer to confirm that it can still be reached.
pub const CONFIRM_TIMEOUT_S_DEFAULT: u32 = 60;
/// How long a version that was deployed has to answer.
pub const PROBE_TIMEOUT_S_DEFAULT: u32 = 30;
/// How long running invocations get when the server stops.
pub const DRAIN_LIMIT_S_DEFAULT: u32 = 60;
/// Descriptors of one slot: socket, three pipes, pidfd, and the Runtime API's connections.
pub const FILES_PER_SLOT: u64 = 5 + RUNTIME_CONNECTIONS_MAX as u64;
/// Descriptors of a slot whose worker has all the extensions that it may have. Few do: nobody is
/// made to allow for them, and a worker that finds none is refused until others have gone.
pub const FILES_OF_EXTENSIONS: u64 = EXTENSIONS_MAX as u64 * (1 + EXTENSION_CONNECTIONS_MAX as u64);
/// Descriptors that the server has besides: epoll, listeners, signals, inotify, lock, helpers, and
/// twice the clients that are turned away (by the API and by the Runtime API).
pub const FILES_OWN: u64 = 48 + 2 * TURNED_AWAY_MAX as u64;
