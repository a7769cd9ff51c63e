/* {"calls": N} says "here", waits for a message, then blocks N times, once for each token of one run but its first. With
 * "pairs": 1 each token takes a `wait` and a `take-tokens`, else one `next-token`. */
#include "cadenza.h"

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
  uint32_t tokens = 0;
  do {
    cadenza_release(mark);
    if (pairs) cadenza_await(handle);
    else while (cadenza_next_token(handle) >= 0) tokens++;
    cadenza_take_tokens(handle, &answer);
    cadenza_need(&answer);
    tokens += answer.progress.tokens.count;
  } while (answer.progress.finish == CADENZA_RUNNING);
  return tokens == run.max_tokens ? 0 : "the run ended early";
}
