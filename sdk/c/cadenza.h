/* What a C program asks of Cadenza: the canonical ABI of syscalls/wit/kernel.wit, written by hand, and below it a small
 * layer that is nicer to call. For programs of one file, built by build.py:
 *
 *     #include "cadenza.h"
 *     const char *cadenza_main(void) { cadenza_print("hello\n"); return 0; }      // NULL is success, else the reason
 *
 * Whatever the kernel answers that is longer than a number lies on the heap that `cabi_realloc` hands out. The heap only
 * grows; give it back in pieces with cadenza_mark and cadenza_release. Texts are UTF-8, with a size, without a zero.
 */
#ifndef CADENZA_H
#define CADENZA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- types: the layout in memory is the canonical ABI's --- */
typedef uint32_t cadenza_handle, cadenza_descriptor, cadenza_token;
typedef struct { const char *at; size_t size; } cadenza_text;
typedef struct { cadenza_token *at; size_t count; } cadenza_tokens;      /* list<u32>, of tokens, handles, positions */

enum cadenza_errno {
  CADENZA_INVALID, CADENZA_NOT_FOUND, CADENZA_EXISTS, CADENZA_DENIED, CADENZA_BUSY, CADENZA_LIMIT, CADENZA_NO_PAGES,
  CADENZA_TOO_LONG, CADENZA_NOT_READY, CADENZA_CANCELLED, CADENZA_CLOSED, CADENZA_FULL, CADENZA_DAMAGED,
  CADENZA_DEVICE_LOST, CADENZA_UNSUPPORTED, CADENZA_INTERNAL,
};
typedef struct { uint8_t number; cadenza_text message; } cadenza_error;  /* number: enum cadenza_errno */

enum cadenza_finish {
  CADENZA_RUNNING, CADENZA_STOP_TOKEN, CADENZA_STOP_SEQUENCE, CADENZA_LENGTH, CADENZA_CONTEXT_FULL, CADENZA_STOPPED,
  CADENZA_GRAMMAR_END,
};
typedef struct { uint32_t first, count; } cadenza_range;
typedef struct {
  cadenza_tokens tokens;
  uint8_t finish;
  uint32_t computed_tokens, reused_tokens;
  struct { const cadenza_range *at; size_t count; } interjected;
} cadenza_progress;

typedef struct { cadenza_token token; float value; } cadenza_bias;
typedef struct {
  float temperature; uint32_t top_k; float top_p, min_p; uint64_t seed;
  struct { const cadenza_bias *at; size_t count; } bias;
  struct { bool present; float repetition, frequency, presence; uint32_t window; } penalties;
} cadenza_sampler;
typedef struct { bool present; cadenza_tokens tokens; bool allowed; } cadenza_mask;   /* option<logit-mask> */
typedef struct { bool present; cadenza_text text; } cadenza_name;                       /* option<string> */
typedef struct { uint32_t row, first, count; } cadenza_visible;
typedef struct { uint32_t row; cadenza_sampler sampler; } cadenza_sample;
enum cadenza_probe_kind { CADENZA_TOP, CADENZA_LOG_PROBABILITIES, CADENZA_ENTROPY, CADENZA_LOGITS, CADENZA_HIDDEN };
typedef struct { uint32_t row; uint8_t kind; union { uint32_t top; cadenza_tokens of; }; } cadenza_probe;
typedef struct { const float *at; size_t count; } cadenza_numbers;
typedef struct {
  uint8_t kind;
  union {
    struct { cadenza_tokens tokens; cadenza_numbers log_probabilities; float tail; } top;
    cadenza_numbers numbers;                                             /* log-probabilities, logits, hidden */
    float entropy;
  };
} cadenza_probe_answer;

typedef struct {                                                         /* record pass */
  cadenza_descriptor file;
  cadenza_tokens reads, tokens, positions;
  struct { const cadenza_visible *at; size_t count; } visible;
  cadenza_mask mask;
  struct { const cadenza_sample *at; size_t count; } samples;
  struct { const cadenza_probe *at; size_t count; } probes;
  cadenza_name adapter;
  struct { bool present; uint32_t row; } scores_from;
  struct { bool present; cadenza_handle handle; } grammar;
} cadenza_pass;
typedef struct {
  cadenza_tokens tokens;
  struct { const cadenza_probe_answer *at; size_t count; } probes;
  uint32_t computed_tokens, reused_tokens;
  cadenza_numbers scores;
} cadenza_completion;

typedef struct { cadenza_token token; uint32_t state; } cadenza_move;
typedef struct {                                                         /* record state */
  cadenza_mask mask;
  struct { const cadenza_move *at; size_t count; } moves;
  struct { uint8_t present; uint32_t state; } otherwise;
  uint8_t open;
} cadenza_state;

typedef struct {                                                         /* record run */
  cadenza_descriptor file;
  cadenza_tokens reads, tokens, positions;
  cadenza_mask mask;
  cadenza_sampler sampler;
  uint32_t max_tokens;
  cadenza_tokens stop_tokens;
  struct { const cadenza_tokens *at; size_t count; } stop_sequences;
  uint32_t deliver_every;
  struct { const cadenza_state *at; size_t count; } states;
  cadenza_name adapter;
  struct { bool present; cadenza_handle handle; } grammar;
} cadenza_run;

typedef struct { cadenza_text text; bool failed, cut; } cadenza_tool_result;
typedef struct { cadenza_text name, value; } cadenza_header;
typedef struct { const cadenza_header *at; size_t count; } cadenza_headers;
typedef struct { uint16_t status; cadenza_headers headers; cadenza_text text; uint32_t size; bool cut; } cadenza_response;

typedef struct {                                                         /* record draft */
  cadenza_descriptor file;
  cadenza_tokens reads;
  cadenza_token token;
  cadenza_tokens tokens, parents;
  cadenza_sampler sampler;
  cadenza_mask mask;
  cadenza_name adapter;
  struct { bool present; cadenza_handle handle; } grammar;
} cadenza_draft;
typedef struct { cadenza_tokens tokens; uint32_t accepted, computed_tokens; uint8_t finish; } cadenza_verdict;
enum cadenza_grammar_kind { CADENZA_JSON_SCHEMA, CADENZA_REGEX, CADENZA_LARK, CADENZA_CHOICES };
typedef struct { uint32_t tokens; bool may_end, ended; } cadenza_grammar_status;

enum cadenza_signal { CADENZA_TERMINATE, CADENZA_KILL, CADENZA_INTERRUPT, CADENZA_USER };
enum cadenza_ending {
  CADENZA_FINISHED, CADENZA_FAILED, CADENZA_EXITED, CADENZA_TRAPPED, CADENZA_KILLED, CADENZA_CPU_LIMIT,
  CADENZA_WALL_LIMIT, CADENZA_MEMORY_LIMIT, CADENZA_OUTPUT_LIMIT,
};
typedef struct { uint8_t ending, code; cadenza_text message; } cadenza_exit_status;
typedef struct { const cadenza_text *at; size_t count; } cadenza_texts;
typedef struct { cadenza_text path, text; } cadenza_source;
typedef struct { const cadenza_source *at; size_t count; } cadenza_sources;
typedef struct {
  cadenza_text name, fingerprint;
  uint32_t vocabulary_size, context_tokens, page_tokens;
  cadenza_tokens stop_tokens;
  struct { bool present; cadenza_token token; } begin_token;
} cadenza_model_facts;

enum { CADENZA_READ = 1, CADENZA_APPEND = 2, CADENZA_CREATE = 4, CADENZA_EXCLUSIVE = 8, CADENZA_TRUNCATE = 16 };
enum { CADENZA_EXACT, CADENZA_APPROXIMATE };
typedef struct { cadenza_text user; uint8_t rights; } cadenza_grant;
typedef struct {                                                         /* rights: CADENZA_READ | CADENZA_APPEND */
  uint32_t tokens, hidden, pages, next_position, shared_pages;
  cadenza_texts paths;
  bool busy;
  cadenza_text owner;
  uint8_t mine, others;
  struct { const cadenza_grant *at; size_t count; } grants;
  uint8_t exactness;
  cadenza_text fingerprint;
  bool durable;
  uint64_t created_ns, modified_ns;
} cadenza_file_status;
typedef struct { cadenza_text name; bool directory; uint32_t tokens; } cadenza_listed;
typedef struct { cadenza_text text; uint32_t lost; } cadenza_message;
typedef struct { cadenza_text name, description, input_schema; } cadenza_tool;
typedef struct { const cadenza_tool *at; size_t count; } cadenza_tools;

/* Every `result<T, error>`: one shape, T is the member that the call's comment names. */
typedef struct {
  uint8_t failed;
  union {
    uint32_t number;
    cadenza_text text;
    cadenza_tokens tokens;
    cadenza_progress progress;
    cadenza_completion completion;
    cadenza_tool_result result;
    cadenza_response response;
    cadenza_verdict verdict;
    cadenza_grammar_status grammar;
    cadenza_exit_status exit;
    cadenza_texts texts;
    struct { const cadenza_listed *at; size_t count; } entries;
    struct { bool present; uint8_t number; } signal;
    struct { bool present; cadenza_message message; } received;
    cadenza_error error;
  };
} cadenza_result;
/* `result<file-status, error>` is wider: it holds numbers of 64 bits. */
typedef struct { uint8_t failed; union { cadenza_file_status status; cadenza_error error; }; } cadenza_status_result;

/* --- imports: one line a function; blocks only where it says so --- */
#define CADENZA_IMPORT(interface, name) \
  __attribute__((import_module("cadenza:kernel/" interface "@0.1.0"), import_name(name))) extern

enum { CADENZA_OUTPUT, CADENZA_ERROR_OUTPUT };
enum { CADENZA_ANY, CADENZA_ALL };
enum { CADENZA_BEGIN, CADENZA_END, CADENZA_INSTANT };
typedef struct { cadenza_handle handle; cadenza_text tool; struct { bool present; uint64_t nanoseconds; } expected; }
    cadenza_intent;

CADENZA_IMPORT("process", "arguments") void cadenza_arguments(cadenza_text *answer);
CADENZA_IMPORT("process", "entropy") uint64_t cadenza_entropy(void);
CADENZA_IMPORT("process", "log") void cadenza_log(uint32_t to, const char *text, size_t size, cadenza_result *answer);
CADENZA_IMPORT("process", "exit") void cadenza_exit(uint32_t code);
CADENZA_IMPORT("process", "pid") uint32_t cadenza_pid(void);
CADENZA_IMPORT("process", "payload") void cadenza_payload(cadenza_sources *answer);
CADENZA_IMPORT("process", "spawn") void cadenza_spawn(                                       /* number: the pid */
    const char *image, size_t image_size, const char *arguments, size_t size, uint32_t detached, cadenza_result *answer);
CADENZA_IMPORT("process", "wait-child") void cadenza_wait_child(uint32_t pid, cadenza_result *answer);     /* number */
CADENZA_IMPORT("process", "take-exit") void cadenza_take_exit(cadenza_handle child, cadenza_result *answer); /* exit */
CADENZA_IMPORT("process", "kill") void cadenza_kill(uint32_t pid, uint32_t signal, cadenza_result *answer);
CADENZA_IMPORT("process", "signals") void cadenza_signals(cadenza_result *answer);                         /* number */
CADENZA_IMPORT("process", "take-signal") void cadenza_take_signal(                                         /* signal */
    cadenza_handle signals, cadenza_result *answer);
/* For those who look at what this process does; kind: CADENZA_BEGIN, … */
CADENZA_IMPORT("process", "mark") void cadenza_trace(
    uint32_t kind, const char *track, size_t track_size, const char *text, size_t size);
/* Blocks. Answers `tokens`: the handles that are ready. */
CADENZA_IMPORT("events", "wait") void cadenza_wait(
    const cadenza_handle *handles, size_t count, uint32_t until, uint32_t has_timeout, uint64_t timeout_ns,
    const cadenza_intent *intents, size_t intent_count, cadenza_result *answer);
CADENZA_IMPORT("events", "timer") void cadenza_timer(uint64_t delay_ns, cadenza_result *answer);           /* number */
CADENZA_IMPORT("events", "close") void cadenza_close_handle(cadenza_handle handle, cadenza_result *answer);
CADENZA_IMPORT("events", "wall-clock") uint64_t cadenza_wall_clock(void);
CADENZA_IMPORT("events", "now") uint64_t cadenza_now(void);
CADENZA_IMPORT("model", "tokenize") void cadenza_tokenize(
    const char *text, size_t size, uint32_t special, cadenza_result *answer);                              /* tokens */
CADENZA_IMPORT("model", "detokenize") void cadenza_detokenize(
    const cadenza_token *tokens, size_t count, uint32_t special, cadenza_result *answer);                  /* text */
CADENZA_IMPORT("model", "facts") void cadenza_facts(cadenza_model_facts *answer);
CADENZA_IMPORT("model", "vocabulary") void cadenza_vocabulary(                                              /* texts */
    uint32_t first, uint32_t count, cadenza_result *answer);
CADENZA_IMPORT("model", "chat") void cadenza_chat(                                                          /* text */
    const char *messages, size_t size, uint32_t generate, cadenza_result *answer);
CADENZA_IMPORT("kv", "open") void cadenza_open(                                                             /* number */
    const char *path, size_t size, uint32_t how, cadenza_result *answer);
CADENZA_IMPORT("kv", "link") void cadenza_link(
    cadenza_descriptor file, const char *path, size_t size, cadenza_result *answer);
CADENZA_IMPORT("kv", "rename") void cadenza_rename(
    const char *path, size_t size, const char *to, size_t to_size, cadenza_result *answer);
CADENZA_IMPORT("kv", "unlink") void cadenza_unlink(const char *path, size_t size, cadenza_result *answer);
CADENZA_IMPORT("kv", "entries") void cadenza_entries(const char *path, size_t size, cadenza_result *answer); /* entries */
CADENZA_IMPORT("kv", "change-mode") void cadenza_change_mode(
    cadenza_descriptor file, uint32_t mine, uint32_t others, cadenza_result *answer);
CADENZA_IMPORT("kv", "change-grant") void cadenza_change_grant(
    cadenza_descriptor file, const char *user, size_t size, uint32_t rights, cadenza_result *answer);
CADENZA_IMPORT("kv", "extract") void cadenza_extract(                                                       /* number */
    cadenza_descriptor file, const cadenza_range *ranges, size_t count, cadenza_result *answer);
CADENZA_IMPORT("kv", "concat") void cadenza_concat(                                                         /* number */
    const cadenza_descriptor *files, size_t count, cadenza_result *answer);
CADENZA_IMPORT("kv", "relocate") void cadenza_relocate(cadenza_descriptor file, int32_t by, cadenza_result *answer);
CADENZA_IMPORT("kv", "hide") void cadenza_hide(
    cadenza_descriptor file, uint32_t first, uint32_t count, cadenza_result *answer);
CADENZA_IMPORT("kv", "show") void cadenza_show(
    cadenza_descriptor file, uint32_t first, uint32_t count, cadenza_result *answer);
CADENZA_IMPORT("kv", "truncate") void cadenza_truncate(cadenza_descriptor file, uint32_t tokens, cadenza_result *answer);
CADENZA_IMPORT("kv", "stat") void cadenza_stat(cadenza_descriptor file, cadenza_status_result *answer);
CADENZA_IMPORT("kv", "tokens") void cadenza_file_tokens(                                                    /* tokens */
    cadenza_descriptor file, uint32_t first, uint32_t count, cadenza_result *answer);
CADENZA_IMPORT("kv", "positions") void cadenza_file_positions(                                              /* tokens */
    cadenza_descriptor file, uint32_t first, uint32_t count, cadenza_result *answer);
CADENZA_IMPORT("kv", "sync") void cadenza_sync(cadenza_descriptor file, cadenza_result *answer);            /* number */
CADENZA_IMPORT("kv", "take-sync") void cadenza_take_sync(cadenza_handle sync, cadenza_result *answer);
CADENZA_IMPORT("kv", "lock") void cadenza_lock(                                                             /* number */
    cadenza_descriptor file, uint32_t exclusive, cadenza_result *answer);
CADENZA_IMPORT("kv", "create") void cadenza_create(cadenza_result *answer);                                /* number */
CADENZA_IMPORT("kv", "fork") void cadenza_fork(cadenza_descriptor file, cadenza_result *answer);           /* number */
CADENZA_IMPORT("kv", "close") void cadenza_close_file(cadenza_descriptor file, cadenza_result *answer);
CADENZA_IMPORT("inference", "forward") void cadenza_forward(const cadenza_pass *pass, cadenza_result *answer);
CADENZA_IMPORT("inference", "take-pass") void cadenza_take_pass(cadenza_handle pass, cadenza_result *answer);
CADENZA_IMPORT("inference", "decode") void cadenza_decode(const cadenza_run *run, cadenza_result *answer); /* number */
CADENZA_IMPORT("inference", "take-tokens") void cadenza_take_tokens(cadenza_handle run, cadenza_result *answer);
/* Blocks. Answers the token that came, or -1: cadenza_take_tokens tells how the run stands. */
CADENZA_IMPORT("inference", "next-token") int32_t cadenza_next_token(cadenza_handle run);
CADENZA_IMPORT("inference", "interject") void cadenza_interject(
    cadenza_handle run, const cadenza_token *tokens, size_t count, cadenza_result *answer);
CADENZA_IMPORT("inference", "stop") void cadenza_stop(cadenza_handle run, cadenza_result *answer);
CADENZA_IMPORT("inference", "verify") void cadenza_verify(const cadenza_draft *draft, cadenza_result *answer); /* number */
CADENZA_IMPORT("inference", "take-verified") void cadenza_take_verified(                                   /* verdict */
    cadenza_handle pass, cadenza_result *answer);
/* kind: enum cadenza_grammar_kind; `source`: a text and its bytes, or texts and how many of CADENZA_CHOICES. */
CADENZA_IMPORT("grammar", "compile") void cadenza_compile(                                                  /* number */
    uint32_t kind, const void *source, size_t size, cadenza_result *answer);
CADENZA_IMPORT("grammar", "take-grammar") void cadenza_take_grammar(cadenza_handle grammar, cadenza_result *answer);
CADENZA_IMPORT("grammar", "fork") void cadenza_fork_grammar(cadenza_handle grammar, cadenza_result *answer); /* number */
CADENZA_IMPORT("grammar", "advance") void cadenza_advance(
    cadenza_handle grammar, const cadenza_token *tokens, size_t count, cadenza_result *answer);
CADENZA_IMPORT("grammar", "roll-back") void cadenza_roll_back(
    cadenza_handle grammar, uint32_t tokens, cadenza_result *answer);
CADENZA_IMPORT("grammar", "status") void cadenza_grammar_now(cadenza_handle grammar, cadenza_result *answer); /* grammar */
CADENZA_IMPORT("grammar", "forced") void cadenza_forced(cadenza_handle grammar, cadenza_result *answer);    /* tokens */
CADENZA_IMPORT("channel", "publish") void cadenza_publish(                             /* number: how many get it */
    const char *topic, size_t topic_size, const char *text, size_t size, cadenza_result *answer);
CADENZA_IMPORT("channel", "subscribe") void cadenza_subscribe(                                              /* number */
    const char *topic, size_t size, cadenza_result *answer);
CADENZA_IMPORT("channel", "push") void cadenza_push(
    const char *queue, size_t queue_size, const char *text, size_t size, cadenza_result *answer);
CADENZA_IMPORT("channel", "pull") void cadenza_pull(const char *queue, size_t size, cadenza_result *answer); /* number */
CADENZA_IMPORT("channel", "take-message") void cadenza_take_message(                                      /* received */
    cadenza_handle source, cadenza_result *answer);
CADENZA_IMPORT("channel", "send") void cadenza_send(const char *text, size_t size, cadenza_result *answer);
CADENZA_IMPORT("channel", "receive") void cadenza_receive(cadenza_result *answer);                         /* number */
CADENZA_IMPORT("tools", "catalog") void cadenza_catalog(cadenza_tools *answer);
CADENZA_IMPORT("tools", "take-bytes") void cadenza_take_bytes(                                     /* text: base64 */
    cadenza_handle call, uint32_t first, uint32_t count, cadenza_result *answer);
/* A tool that the manifest names; `arguments`: a JSON object. */
CADENZA_IMPORT("tools", "call") void cadenza_call_tool(                                                    /* number */
    const char *name, size_t name_size, const char *arguments, size_t size, uint32_t has_timeout, uint64_t timeout_ns,
    cadenza_result *answer);
CADENZA_IMPORT("tools", "take-result") void cadenza_take_result(cadenza_handle call, cadenza_result *answer);
CADENZA_IMPORT("tools", "request") void cadenza_request(                                                   /* number */
    const char *method, size_t method_size, const char *url, size_t url_size, const cadenza_header *headers, size_t count,
    const char *body, size_t size, uint32_t has_timeout, uint64_t timeout_ns, cadenza_result *answer);
CADENZA_IMPORT("tools", "take-response") void cadenza_take_response(cadenza_handle call, cadenza_result *answer);

_Static_assert(sizeof(cadenza_result) == 36 && sizeof(cadenza_error) == 12, "the canonical ABI's layout");
_Static_assert(sizeof(cadenza_pass) == 96 && sizeof(cadenza_run) == 160 && sizeof(cadenza_state) == 36, "the canonical ABI's layout");
_Static_assert(sizeof(cadenza_sample) == 64 && sizeof(cadenza_probe) == 16 && sizeof(cadenza_probe_answer) == 24,
               "the canonical ABI's layout");
_Static_assert(sizeof(cadenza_draft) == 128 && sizeof(cadenza_file_status) == 88 && sizeof(cadenza_status_result) == 96 &&
               sizeof(cadenza_model_facts) == 44 && sizeof(cadenza_listed) == 16, "the canonical ABI's layout");

/* --- the heap --- */
extern unsigned char __heap_base;
static uintptr_t cadenza_heap_next;

/* Where a program ends that has no more memory: by this name the kernel tells its end from others. */
static __attribute__((noinline, noreturn)) void cadenza_out_of_memory(void) { __builtin_trap(); }

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  if (!cadenza_heap_next) cadenza_heap_next = (uintptr_t)&__heap_base;
  uintptr_t at = (cadenza_heap_next + align - 1) & ~(uintptr_t)(align - 1);
  uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
  if (at + size > have && __builtin_wasm_memory_grow(0, (at + size - have + 0xffff) >> 16) == (size_t)-1)
    cadenza_out_of_memory();
  cadenza_heap_next = at + size;
  for (size_t i = 0; i < old_size && i < size; i++) ((char *)at)[i] = ((char *)old)[i];
  return (void *)at;
}

static inline uintptr_t cadenza_mark(void) { return cadenza_heap_next; }
/* Everything that was handed out since `mark` is gone. */
static inline void cadenza_release(uintptr_t mark) { if (mark) cadenza_heap_next = mark; }

/* --- the convenience layer: the first failure ends the program, with the kernel's reason --- */
static struct { uint8_t failed; cadenza_text reason; } cadenza_ending;
const char *cadenza_main(void);

static inline size_t cadenza_length(const char *text) { size_t n = 0; while (text[n]) n++; return n; }

/* As the lines of a log: to the client, standard output. */
static inline void cadenza_print_text(cadenza_text text) {
  cadenza_result answer;
  cadenza_log(CADENZA_OUTPUT, text.at, text.size, &answer);
}
static inline void cadenza_print(const char *text) { cadenza_print_text((cadenza_text){text, cadenza_length(text)}); }

static inline void cadenza_need(const cadenza_result *answer) {
  if (!answer->failed) return;
  cadenza_log(CADENZA_ERROR_OUTPUT, answer->error.message.at, answer->error.message.size, &(cadenza_result){0});
  cadenza_exit(1);
  __builtin_unreachable();
}

/* Blocks until `handle` is ready. */
static inline void cadenza_await(cadenza_handle handle) {
  cadenza_result answer;
  cadenza_wait(&handle, 1, CADENZA_ANY, 0, 0, 0, 0, &answer);
  cadenza_need(&answer);
}

/* What follows `"key":` in a JSON object without nesting; size 0 if it is not there. A string comes without its quotes,
 * escapes as they are. */
static inline cadenza_text cadenza_member(cadenza_text json, const char *key) {
  size_t length = cadenza_length(key);
  for (size_t i = 1; i + length + 1 < json.size; i++) {
    size_t n = 0;
    while (n < length && json.at[i + n] == key[n]) n++;
    if (n < length || json.at[i - 1] != '"' || json.at[i + n] != '"') continue;
    size_t at = i + n + 1;
    while (at < json.size && (json.at[at] == ' ' || json.at[at] == ':')) at++;
    bool quoted = at < json.size && json.at[at] == '"';
    size_t end = at += quoted;
    while (end < json.size && (quoted ? json.at[end] != '"' || json.at[end - 1] == '\\'
                                      : json.at[end] != ',' && json.at[end] != '}')) end++;
    return (cadenza_text){json.at + at, end - at};
  }
  return (cadenza_text){0, 0};
}

static inline uint32_t cadenza_number_member(cadenza_text json, const char *key, uint32_t otherwise) {
  cadenza_text text = cadenza_member(json, key);
  uint32_t number = 0;
  for (size_t i = 0; i < text.size && text.at[i] >= '0' && text.at[i] <= '9'; i++) number = number * 10 + text.at[i] - '0';
  return text.size ? number : otherwise;
}

__attribute__((export_name("run"))) void *cadenza_entry(void) {
  const char *reason = cadenza_main();
  cadenza_ending.failed = reason != 0;
  if (reason) cadenza_ending.reason = (cadenza_text){reason, cadenza_length(reason)};
  return &cadenza_ending;
}

#endif
