"""The limits of the daemon itself, with their units in their names. Those of programs are in kernel/limits.py."""

from __future__ import annotations

# --- requests ---
REQUEST_IDS_PER_USER = 1024                 # answers remembered for a repeated request; the oldest go first
REQUEST_ID_BYTES = 128
UPLOADS_PER_USER = 4                        # uploads under way at once; each may hold IMAGE_BYTES
NAME_CHARACTERS = 128                       # of an image
READ_TOKENS = 4096                          # tokens in one piece of a file that is read as text
PAGE_SIZE = 100                             # objects in one answer of `List`, unless asked
PAGE_SIZE_MOST = 1000
PAGE_BYTES = 1 << 20                        # of one answer of `List`, but for its last object
TOP_PROCESSES = 100                         # told of in one answer of `Top`, unless asked
TOP_PROCESSES_MOST = 1000
TOP_SLICE_SECONDS = 0.001                   # of making such an answer, before the event loop sees to others
RPC_MESSAGE_BYTES = 4 << 20                 # one gRPC message, either way; gRPC's own default
STATUS_CHARACTERS = 1000                    # of an error's message: gRPC refuses statuses above 8 KiB, details and all

# --- clients ---
GATHER_SECONDS = 0.004                      # between two sends to one client: each costs as much as many events
BATCH_CHARACTERS = 256 << 10                # of one send, but for its last event
RECEIPTS = 1024                             # not sent yet; then the client's messages wait
BOUND_SECONDS = 5.0                         # a bound process without a client attached lives so long
STOP_SECONDS = 2.0                          # between the end of the last process and the end of the last connection

# --- tools ---
CONNECT_SECONDS = 10.0                      # to one address of a host
CONNECT_ADDRESSES = 4                       # tried of a host
RESOLVER_THREADS = 16                       # names asked for at once
FRAME_BYTES = 64 << 20                      # head or body of what the outside process says
OUTSIDE_STOP_SECONDS = 4.0                  # that the outside process has to end, with its MCP servers
OUTSIDE_RESTART_SECONDS = 1.0               # before one that died is started again
MCP_MESSAGE_BYTES = 2 << 20                 # of a server's
MCP_TOOLS = 128                             # of one server
MCP_DESCRIPTION_BYTES = 8 << 10             # of one tool, schema and all; else it is left out
MCP_START_SECONDS = 10.0
MCP_STOP_SECONDS = 1.0                      # between the end of a server's input and the end of it
MCP_RESTART_SECONDS = 1.0                   # before one that died is started again; twice as long each time
MCP_RESTART_SECONDS_MOST = 60.0

# --- the daemon ---
COLLECT_OBJECTS = 20_000                    # made and not given back before Python looks for garbage among them
