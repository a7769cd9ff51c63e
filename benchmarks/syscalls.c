/* {"calls": N} says "here", waits for a message, then blocks N times, once for each token of one run but its first. With
 * "pairs": 1 each token takes a `wait` and a `take-tokens`; else it takes one `next-tokens`. */
#include "cadenza.h"

static uint32_t take(cadenza_handle run, cadenza_result *answer) {
  cadenza_take_tokens(run, answer);
  cadenza_need(answer);
  return answer->progress.tokens.count;
}

const char *cadenza_main(void) {
  cadenza_text arguments;
  cadenza_arguments(&arguments);
  uint32_t pairs = cadenza_number_member(arguments, "pairs", 0);
  cadenza_result answer;
  cadenza_print("here");
  cadenza_receive(&answer);
  cadenza_need(&answer);
  cadenza_await(answer.number);
  cadenza_create(&answer);
  cadenza_need(&answer);

  cadenza_token first = 1;
  cadenza_run run = {
    .file = answer.number, .tokens = {&first, 1}, .sampler = {.top_p = 1},
    .max_tokens = cadenza_number_member(arguments, "calls", 100), .deliver_every = 1,
  };
  cadenza_decode(&run, &answer);
  cadenza_need(&answer);
  cadenza_handle handle = answer.number;

  uintptr_t mark = cadenza_mark();
  uint32_t tokens = 0, come;
  do {
    cadenza_release(mark);
    if (pairs) {
      cadenza_await(handle);
      tokens += take(handle, &answer);
      if (answer.progress.finish != CADENZA_RUNNING) break;
    } else {
      cadenza_next_tokens(handle, &answer);
      cadenza_need(&answer);
      come = answer.tokens.count;
      tokens += come ? come : take(handle, &answer);
    }
  } while (pairs || come);
  return tokens == run.max_tokens ? 0 : "the run ended early";
}
