"""Every limit, with its unit in its name. Those of a process are fields of `ProcessLimits`; the rest bound the kernel.

A limit is inclusive: a program may use exactly so much. What happens one past it is said beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cadenza.kvfs.limits import FileLimits

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one process may use. The operator's are the most a spawn may ask for."""

    memory_bytes: int = 256 * MEBIBYTE      # linear memory of the guest; growing past it fails in the guest
    cpu_fuel: int = 2_000_000_000_000       # wasm instructions, about 10 minutes; then `cpu-limit`
    wall_seconds: float = 3600.0            # since spawn; then `wall-limit`
    output_bytes: int = 16 * MEBIBYTE       # log and messages in all; then `output-limit`
    kv_pages: int = 16_384                  # pages of every file it holds; then errno `limit`
    descriptors: int = 1024                 # open files; then errno `limit`
    handles: int = 4096                     # pending and untaken handles; then errno `limit`
    children: int = 256                     # living children; then errno `limit`


# --- guests ---
WASM_STACK_BYTES = 512 << 10                # deeper recursion traps in the guest
FIBER_STACK_BYTES = 2 * MEBIBYTE            # the fiber's own stack: the guest's, and room for a host callback
SLICE_FUEL = 3_000_000                      # instructions before a guest makes room for others, about 1 ms
SLICE_CALLS = 64                            # immediate system calls before it does
HEAVY_SLICES = 8                            # full slices in a row before a guest continues on a worker thread
HEAVY_THREADS = 2                           # such worker threads

# --- images ---
IMAGE_BYTES = 64 * MEBIBYTE                 # an upload, compiled or source
IMAGES_PER_USER = 1000
COMPILE_SECONDS = 180                       # CPU of the compiling child
COMPILE_WALL_SECONDS = 300
INTERPRETER_WALL_SECONDS = 3_600            # to compile our own image: however busy the machine is, it must come up
COMPILE_BYTES = 6 << 30                     # address space of the compiling child
SOURCE_FILES = 256                          # files in a directory or zip of Python modules
SOURCE_BYTES = 4 * MEBIBYTE                 # their text in all

# --- adapters ---
ADAPTERS = 64                               # loaded at once, of all users; equal ones count once
ADAPTERS_PER_USER = 16                      # kept
ADAPTER_BYTES = 256 * MEBIBYTE              # the weights of one
ADAPTERS_BYTES = 2 << 30                    # of all that are loaded
ADAPTER_CONFIG_BYTES = 64 << 10             # the settings of one
ADAPTER_RANK = 256

# --- system calls ---
ARGUMENTS_BYTES = 64 << 10                  # the JSON object given at spawn
MESSAGE_BYTES = MEBIBYTE                    # one message of any channel
TEXT_BYTES = 4 * MEBIBYTE                   # text given to tokenize, chat, log
INLINE_TEXT_BYTES = 4096                    # longer texts are tokenized off the event loop
WAIT_HANDLES = 1024                         # handles in one wait
VOCABULARY_COUNT = 4096                     # tokens asked of `vocabulary` at once
PASS_TOKENS = 131_072                       # input tokens of one pass, if the context allows as many
PASS_SAMPLES = 1024
PASS_PROBES = 1024
PASS_PROBE_VALUES = 1 << 22                 # numbers that the probes of one pass answer: 16 MiB
PASS_READS = 1024                           # segments that one pass reads beside its own: one a file, or one a part
PROBE_TOKENS = 4096                         # k of `top`, or tokens of `log-probabilities`
DRAFT_TOKENS = 128                          # of one draft, its root apart
VISIBLE_RANGES = 65_536                     # of one pass
SAMPLER_BIASES = 1024                       # of one sampler
BIAS_MOST = 1000                            # either way, added to a logit
PENALTY_MOST = 100                          # frequency and presence, either way; repetition, and one over it
PASS_TOLD_TOKENS = 1 << 20                  # that the samples of one pass are told: of biases, of penalties' histories
STOP_TOKENS = 1024
STOP_SEQUENCES = 64
STOP_SEQUENCE_TOKENS = 64
RUN_STATES = 64                             # states of one run
RUN_MOVES = 1024                            # moves of all its states
INTERJECTED_TOKENS = 8192                   # that wait to be put into one run
TIMER_SECONDS = 7 * 86_400.0
TOPIC_BYTES = 256                           # length of a topic or queue, of a user's name

# --- grammars ---
GRAMMAR_BYTES = 64 << 10                    # text of one
GRAMMAR_COMPILE_SECONDS = 1.5               # to compile one, on the clock
GRAMMAR_COMPILE_BYTES = 1 << 30             # address space of the process that tries
GRAMMAR_HELD_BYTES = 64 * MEBIBYTE          # that one takes when compiled
GRAMMARS = 256                              # kept compiled, of all users; those not used for longest go first
GRAMMARS_BYTES = 256 * MEBIBYTE             # likewise
GRAMMARS_PER_PROCESS = 256                  # handles of grammars that are not closed
GRAMMARS_WAITING_PER_USER = 64              # that are yet to be compiled, one after the other
GRAMMAR_DRAFT_SECONDS = 0.005               # spent on what a grammar allows along one draft; the rest is not drafted
GRAMMAR_TOKENS = 1024                       # given to one `advance`, answered by one `forced`
GRAMMAR_ADVANCE_SECONDS = 0.02              # spent on one `advance`, but for its first token
GRAMMAR_HISTORY_TOKENS = 1 << 18            # since their beginnings, of all grammars of a process; 200 bytes each
# In llguidance's measures, for one mask; what asks for more ends. A mask mostly takes 20 µs, the worst 4 ms; a token
# that moves an ambiguous grammar takes 1 ms if it has two letters, and 10 if it has sixteen.
GRAMMAR_STEP_FUEL = 50_000                  # nodes of regular expressions
GRAMMAR_STEP_ITEMS = 5_000                  # items of the parser
GRAMMAR_ROW_ITEMS = 500                     # of them at once: four for each optional property of an object
GRAMMAR_LEXER_STATES = 20_000               # of one compiled grammar, 1 to 2 KiB each

# --- tools ---
MANIFEST_BYTES = 16 << 10                   # TOML of an image
MANIFEST_PATTERNS = 64                      # of hosts, and of tools
TOOL_CALLS_PER_PROCESS = 64                 # handles of `call` and `request` that are not closed
TOOL_CALLS_PER_USER = 1024                  # likewise
TOOL_CALLS_AT_ONCE_PER_USER = 64            # under way; the rest wait their turn
TOOL_CALLS_AT_ONCE = 512                    # of all users: each may be a connection
TOOL_SECONDS = 600.0                        # the longest timeout of a call, and the usual one
TOOL_TEXT_BYTES = 256 << 10                 # of a tool's answer; the rest is cut off
TOOL_BYTES_PER_USER = 64 * MEBIBYTE         # answers that are held; the next one fails
URL_BYTES = 8192
HTTP_HEADERS = 256                          # of a request, of a response
HTTP_HEADER_BYTES = 32 << 10                # names and values in all
HTTP_BODY_BYTES = MEBIBYTE                  # of a response; the rest is cut off. Of a request: MESSAGE_BYTES
HTTP_PIECE_BYTES = 256 << 10                # of a body, asked for at once as bytes

# --- files ---
FILES_PER_USER = 32_768                     # files alive, and names beyond the first of each
KV_BYTES_PER_USER = 0                       # pages charged to a user; 0: all that the pool has
PATH_BYTES = 1024                           # of a path, from the root
PATH_NAMES = 16                             # names in it
GRANTS_PER_FILE = 256                       # users named
FILE_PARTS = 1024                           # runs of tokens that a file was put together of, or that are hidden in it
FILE_TOKENS = 1 << 20                       # of a file put together of others
RANGE_TOKENS = 131_072                      # tokens or positions asked of a file at once

# --- processes ---
PROCESSES = 16_384                          # alive at once: 4 memory maps each, the system's default allows 65,530
PROCESSES_PER_USER = 16_384
ENDED_PROCESSES = 4096                      # ended ones remembered, with their output; the oldest go first
PRIORITY_LEAST = -10                        # of a process; 0 is usual, higher goes first
PRIORITY_MOST = 10                          # the operator says how much of it users may ask for
OUTPUT_RING_BYTES = MEBIBYTE                # output kept for those who attach later; the oldest goes first, counted
OUTPUT_RING_EVENTS = 65_536                 # likewise, in pieces
QUEUE_MESSAGES = 1024                       # messages waiting in one channel
QUEUES_PER_USER = 1024
MESSAGE_OVERHEAD_BYTES = 64                 # that a waiting message counts as, beside its text
QUEUED_BYTES_PER_USER = 64 * MEBIBYTE       # text waiting in all channels of a user
TRACE_RECORDS = 4096                        # kept of what a process does; the oldest go first, counted
TRACE_TEXT_BYTES = 256                      # of what one record says; longer ones are cut
TRACE_TRACK_BYTES = 64                      # likewise, of a mark's track
TRACE_GAP_SECONDS = 0.1                     # between two tokens, or waits, that make one record
TOOLS_PER_USER = 256                        # whose durations are remembered; those not called for longest go first
TERMINATE_SECONDS = 5.0                     # between `terminate` and `kill` when the daemon stops

# --- batches ---
STEP_TOKENS = 2048                          # input tokens of one step: decodes first, the rest is prefill
BESIDE_DECODES_TOKENS = 512                 # of a step in which somebody decodes, if the device does not say otherwise
STEP_ROWS = 1024                            # passes in one step; what they ask beyond a sample each: what one pass may
RUN_AHEAD_STEPS = 2                         # steps submitted before the first of them has come back
MOST_RUN_AHEAD_STEPS = 5                    # that an operator may ask for
AGING_SECONDS = 0.5                         # who was passed over for so long goes first once, whatever the priority
USERS_REMEMBERED = 4096                     # users of whom it is known what they were served; idle ones are forgotten
LANES = 16_384                              # decodes alive at once
PATIENCE_SECONDS = 2.0                      # that a pass waits for pages which idle programs hold; then `no-pages`
RETRY_SECONDS = 0.02                        # between two looks, meanwhile
STAGING_PAGES = 192                         # host pages on the way to disk (a third of them) or from it
DEVICE_RESTARTS = 3                         # of a device that was lost, within the next; then it stays so
DEVICE_RESTARTS_WITHIN_SECONDS = 600.0
DEVICE_RESTART_SECONDS = 1.0                # before the next try, when one has failed
DEVICE_LOSSES_PER_PASS = 2                  # a pass that was under way in so many of them fails
IDLE_SECONDS = 1.0                          # without work, before the pages are recounted


def file_limits(page_bytes: int, quota_bytes: int = KV_BYTES_PER_USER) -> FileLimits:
    """Those above, as the file system takes them. `page_bytes`: of KV; 0 where pages hold nothing, and no quota can be
    kept."""
    pages = max(1, quota_bytes // page_bytes) if quota_bytes and page_bytes else 0
    return FileLimits(FILES_PER_USER, pages, PATH_BYTES, PATH_NAMES, GRANTS_PER_FILE, FILE_PARTS, FILE_TOKENS)
